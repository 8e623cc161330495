package omni_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// faults is everything that is known to go wrong in use, and the tests that make it go wrong with real processes. Those in
// pipeline, api and cmd/omni-run have scripted engines (package pipelinetest), those in cmd/omni-worker the real ones.
var faults = []struct {
	what  string
	tests []string // package.Test, or package.Test/name of a case
}{
	// A worker is killed.
	{"killed while it loads", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart/killed while loading", "cmd/omni-worker.TestRealWorkerIsKilledAndComesBack",
	}},
	{"killed at the admission of a request", []string{"pipeline.TestRequestIsRunAgainAfterADeath/killed at admission"}},
	{"killed in prefill", []string{"pipeline.TestRequestIsRunAgainAfterADeath/killed in prefill"}},
	{"killed in decode", []string{
		"pipeline.TestRequestIsRunAgainAfterADeath/killed in decode", "pipeline.TestRequestIsRunAgainAfterADeath/killed in the last stage",
		"cmd/omni-worker.TestRealWorkerIsKilledAndComesBack",
	}},
	{"killed as it hands on, in the middle of a message", []string{
		"pipeline.TestRequestIsRunAgainAfterADeath/killed as it hands on", "pipeline.TestDeathInsideAMessageIsADeath",
	}},
	{"killed as it is handed something", []string{"pipeline.TestRequestIsRunAgainAfterADeath/killed as it is fed"}},
	{"killed while it is profiled: idle, as it begins to record, in a recorded step, as it writes its files", []string{
		"pipeline.TestDeathOfAProfiledWorkerIsInTheReport", "pipeline.TestKilledWorkerIsMissed", "pipeline.TestWorkerIsKilledAtEveryPointOfASession",
		"cmd/omni-worker.TestSessionOfRealWorkersThatLosesOne/killed", "cmd/omni-worker.TestTracesOfKilledWorkersAreRepaired",
	}},
	{"killed at random, with a thousand requests", []string{"pipeline.TestThousandRequestsWithRandomKills"}},

	// A worker goes wrong.
	{"hangs before it has said hello", []string{"pipeline.TestOpenReportsWhyAStageCannotStart/a hang before hello"}},
	{"hangs while it loads", []string{"pipeline.TestOpenReportsWhyAStageCannotStart/a hang while loading"}},
	{"hangs in a step", []string{"pipeline.TestHangingStepIsFoundByItsLimit"}},
	{"hangs as a whole", []string{"pipeline.TestFrozenWorkerIsReplaced"}},
	{"hangs when it is to stop", []string{"pipeline.TestWorkerThatIgnoresStoppingIsKilled"}},
	{"hangs while a session starts or is asked about", []string{
		"pipeline.TestStartThatIsGivenUpStopsWhoHasBegun", "pipeline.TestProfileStatusOfAWorkerInsideALongStep",
	}},
	{"floods standard error while it loads and in a step", []string{"pipeline.TestFloodOfStderrHoldsUpNothing"}},
	{"answers garbage before hello, while it loads, in decode", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart/garbage before hello", "pipeline.TestOpenReportsWhyAStageCannotStart/garbage while loading",
		"pipeline.TestRequestIsRunAgainAfterADeath/garbage in decode",
	}},
	{"exits with 0, or another status", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart/an end with status 0", "pipeline.TestOpenReportsWhyAStageCannotStart/an end with status 3 before hello",
		"pipeline.TestRequestIsRunAgainAfterADeath/status 0 in decode",
	}},
	{"panics, or crashes in C++", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart/a panic", "pipeline.TestRequestIsRunAgainAfterADeath/panic in decode",
		"cmd/omni-worker.TestCrashInTheLibraryLeavesShortLastWords",
	}},
	{"loses its device", []string{"pipeline.TestRequestIsRunAgainAfterADeath/device lost in decode"}},
	{"fails one sequence of a batch", []string{"pipeline.TestErrorOfOneSequenceConcernsItAlone"}},
	{"is told to end from outside", []string{
		"pipeline.TestTerminatedWorkerComesBack", "pipeline.TestTerminatedWorkerLeavesItsFiles",
		"cmd/omni-worker.TestSessionOfRealWorkersThatLosesOne/told to end",
	}},
	{"cannot be started", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart/an engine that refuses", "pipeline.TestOpenReportsWhyAStageCannotStart/weights that cannot be read",
		"pipeline.TestOpenReportsWhyAStageCannotStart/no executable", "pipeline.TestOpenReportsWhyAStageCannotStart/an executable that is none",
		"cmd/omni-worker.TestTruncatedCheckpointIsAnErrorOfAStage",
	}},
	{"takes long to load", []string{"pipeline.TestLoadingReportsProgress"}},
	{"has a clock that differs from the pipeline's", []string{
		"pipeline.TestLedgerOfWorkersWithOtherClocks", "pipeline.TestMergedTraceOfWorkersWithOtherClocks",
	}},
	{"hits a limit of memory while it loads", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart/a limit of memory while loading", "cmd/omni-worker.TestMemoryLimitWhileLoadingIsAnErrorOfAStage",
		"cmd/omni-worker.TestMemoryLimitAtTheStartIsAnErrorOfAStage",
	}},

	// It is started again.
	{"pauses before a restart grow up to a limit, and begin anew after a long life", []string{
		"pipeline.TestRestartsPauseLongerUpToALimit", "pipeline.TestPausesBeginAnewAfterALongLife",
	}},
	{"a request that has shown nothing is run again, once", []string{
		"pipeline.TestRequestIsRunAgainOnlyOnce", "cmd/omni-run.TestAWorkerThatDiesOnceCostsNoRequest",
		"cmd/omni-run.TestAWorkerThatKeepsDyingFailsItsRequestsByName",
	}},
	{"a request that has shown something fails at once", []string{"pipeline.TestDeathFailsWhatHasBeenShown"}},
	{"a stage that is not ready says so, and why", []string{
		"pipeline.TestRestartsPauseLongerUpToALimit", "pipeline.TestWorkerThatCannotComeBackFailsWhoeverWaits",
		"api.TestHealthIsReadyOnlyWhenEveryStageIs", "cmd/omni-run.TestHealthOfAServerWhoseWorkerDies",
	}},

	// The parent ends.
	{"the parent is killed", []string{"pipeline.TestNoWorkerOutlivesItsParent", "cmd/omni-worker.TestNoRealWorkerOutlivesItsParent"}},
	{"SIGINT and SIGTERM before a worker has said hello", []string{"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/before hello"}},
	{"SIGINT and SIGTERM while loading", []string{
		"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/loading", "cmd/omni-run.TestSignalToAServerWithoutAllItsWorkers/loading, ",
	}},
	{"SIGINT and SIGTERM at admission", []string{"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/admission"}},
	{"SIGINT and SIGTERM in prefill", []string{"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/prefill"}},
	{"SIGINT and SIGTERM in decode", []string{"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/decoding"}},
	{"SIGINT and SIGTERM while stages hand on", []string{
		"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/handing on to the talker", "cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/handing on to code2wav",
	}},
	{"SIGINT and SIGTERM in the talker and in code2wav", []string{
		"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/in the talker", "cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/in code2wav",
	}},
	{"SIGINT and SIGTERM while a stage comes back, or waits to", []string{
		"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/while a stage comes back", "cmd/omni-run.TestSignalToAServerWithoutAllItsWorkers/before a restart, ",
	}},
	{"SIGINT and SIGTERM while a recording begins, while it goes on, while its files are written", []string{
		"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/a recording begins", "cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/while profiled",
		"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/writing profiles",
	}},
	{"SIGINT and SIGTERM while results are written", []string{
		"cmd/omni-run.TestSignalWhileTheResultsAreWritten", "cmd/omni-run.TestSignalWhileATextIsWritten", "cmd/omni-run.TestSignalBetweenResults",
	}},
	{"SIGINT and SIGTERM while closing", []string{"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase/closing"}},
	{"SIGINT and SIGTERM to a server: idle, with a request, with a profile, with a request that does not end", []string{
		"cmd/omni-run.TestServerStopsCleanlyAtASignal/idle", "cmd/omni-run.TestServerStopsCleanlyAtASignal/with a request",
		"cmd/omni-run.TestServerStopsCleanlyAtASignal/with a profile", "cmd/omni-run.TestServerStopsCleanlyAtASignal/with a request that is profiled",
		"cmd/omni-run.TestServerCutsOffWhatDoesNotEnd", "cmd/omni-run.TestServeAnswersAndEndsProperly",
	}},
	{"a second SIGINT or SIGTERM", []string{
		"cmd/omni-run.TestTheSecondSignalStopsAtOnceInEveryPhase", "cmd/omni-run.TestTheSecondSignalEndsFrozenWorkers",
		"cmd/omni-run.TestTheSecondSignalStopsAServerAtOnce",
	}},
	{"opening is cancelled, or the pipeline is closed, with requests or a session in it", []string{
		"pipeline.TestOpenCanBeCancelledWhileLoading", "pipeline.TestCloseEndsRequestsAndRefusesNewOnes", "pipeline.TestCloseDuringASessionSaysWhatItLeft",
	}},

	// A folder cannot be written.
	{"the output folder is missing, a file, read-only, full, removed meanwhile", []string{
		"cmd/omni-run.TestFoldersThatCannotBeWritten/output, missing", "cmd/omni-run.TestFoldersThatCannotBeWritten/output, a file in its place",
		"cmd/omni-run.TestFoldersThatCannotBeWritten/output, read-only", "cmd/omni-run.TestFoldersThatCannotBeWritten/output, full",
		"cmd/omni-run.TestFoldersThatAreRemovedMeanwhile/--output-dir",
	}},
	{"the profile folder is missing, a file, read-only, full, removed meanwhile", []string{
		"cmd/omni-run.TestFoldersThatCannotBeWritten/profile, missing", "cmd/omni-run.TestFoldersThatCannotBeWritten/profile, a file in its place",
		"cmd/omni-run.TestFoldersThatCannotBeWritten/profile, read-only", "cmd/omni-run.TestFoldersThatCannotBeWritten/profile, full",
		"cmd/omni-run.TestFoldersThatAreRemovedMeanwhile/--profile-dir", "cmd/omni-run.TestFoldersThatAServerCannotWrite",
		"pipeline.TestFullDiskOfOneStage", "cmd/omni-worker.TestSessionOfRealWorkersThatLosesOne/full disk",
	}},

	{"another pipeline has its profiles in the same folder", []string{
		"profiler.TestPipelinesDoNotShareNumbers", "pipeline.TestPipelinesShareADirectory",
	}},
	{"the operator table alone cannot be written", []string{"profiler.TestATableThatIsLostFailsNoSession"}},

	// A request ends early, or not.
	{"cancelled at every point of every stage", []string{"pipeline.TestCancelInEveryStage", "cmd/omni-worker.TestCancelInEveryRealStage"}},
	{"its reader leaves", []string{"pipeline.TestBreakingOutOfAStreamCancelsIt"}},
	{"its reader is slow", []string{"pipeline.TestSlowReaderHoldsUpItsOwnRequestOnly"}},
	{"its client goes away", []string{"api.TestAClientThatGoesAwayIsInNoFurtherStep", "api.TestSoak"}},
	{"it never ends", []string{"pipeline.TestRequestThatNeverEndsDumpsTheFlightRecorders", "pipeline.TestSlowRequestsInAStepThatDoesNotEnd"}},
	{"there is a flood of them when profile control comes", []string{
		"pipeline.TestProfileControlIsNotDelayedByRequests", "pipeline/worker.TestProfileControlComesBeforeQueuedInput",
	}},
}

// aboutFaults are the files whose tests are all in the table.
var aboutFaults = regexp.MustCompile(`^(api|pipeline|cmd/[a-z-]+)/([a-z_]*_)?(fault|signal|restart|soak|orphan|memory|cancel)_test\.go$`)

// The table must not promise tests or cases that are gone, nor lack one that a file about faults has. The name of a case, or
// how it begins, is a text in the file of its test.
func TestEveryFaultHasItsTest(t *testing.T) {
	texts := map[string]map[string]bool{} // package.Test to the texts of its file
	missing := map[string]bool{}
	for _, p := range packages(t) {
		eachFileOf(t, p, parser.SkipObjectResolution, func(name string, file *ast.File) {
			said := textsOf(file)
			for _, test := range testsOf(file) {
				texts[p.name()+"."+test] = said
				missing[p.name()+"."+test] = aboutFaults.MatchString(name)
			}
		})
	}
	for _, fault := range faults {
		for _, entry := range fault.tests {
			dot := strings.Index(entry, ".Test")
			test, name, _ := strings.Cut(entry[dot:], "/")
			test = entry[:dot] + test
			missing[test] = false
			switch said, ok := texts[test]; {
			case !ok:
				t.Errorf("%s: there is no %s", fault.what, test)
			case name != "" && !said[name]:
				t.Errorf("%s: %s has no case %q", fault.what, test, name)
			}
		}
	}
	for test, is := range missing {
		if is {
			t.Errorf("%s is in a file about faults, but not in the table: add what goes wrong in it", test)
		}
	}
}

// textsOf returns the texts in a file's code.
func textsOf(file *ast.File) map[string]bool {
	texts := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				texts[text] = true
			}
		}
		return true
	})
	return texts
}

// testsOf returns the names of a file's tests.
func testsOf(file *ast.File) []string {
	var names []string
	for _, declaration := range file.Decls {
		if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv == nil && isTest.MatchString(function.Name.Name) {
			names = append(names, function.Name.Name)
		}
	}
	return names
}
