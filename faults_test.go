package omni_test

import (
	"go/ast"
	"go/parser"
	"testing"
)

// faults is everything that is known to go wrong in use, and the test that makes it go wrong with real processes. Those in
// pipeline, api and cmd/omni-run have scripted engines (package pipelinetest), those in cmd/omni-worker the real ones.
var faults = []struct {
	what  string
	tests []string // package.Test
}{
	{"a worker is killed while loading", []string{"pipeline.TestOpenReportsWhyAStageCannotStart", "cmd/omni-worker.TestRealWorkerIsKilledAndComesBack"}},
	{"a worker is killed at admission, in prefill, in decode, while it is fed, while it hands on", []string{"pipeline.TestRequestIsRunAgainAfterADeath", "pipeline.TestDeathInsideAMessageIsADeath", "cmd/omni-worker.TestRealWorkerIsKilledAndComesBack"}},
	{"a worker is killed while it is profiled: idle, as it begins to record, in a recorded step, while it writes its files", []string{
		"pipeline.TestDeathOfAProfiledWorkerIsInTheReport", "pipeline.TestKilledWorkerIsMissed",
		"pipeline.TestWorkerIsKilledAtEveryPointOfASession", "cmd/omni-worker.TestSessionOfRealWorkersThatLosesOne",
		"cmd/omni-worker.TestTracesOfKilledWorkersAreRepaired",
	}},
	{"a worker is killed again and again", []string{"pipeline.TestRequestIsRunAgainOnlyOnce", "cmd/omni-run.TestAWorkerThatKeepsDyingFailsItsRequestsByName"}},
	{"a worker dies after the caller has seen something", []string{"pipeline.TestDeathFailsWhatHasBeenShown"}},
	{"a worker is told to end from outside", []string{
		"pipeline.TestTerminatedWorkerComesBack", "pipeline.TestTerminatedWorkerLeavesItsFiles", "cmd/omni-worker.TestSessionOfRealWorkersThatLosesOne",
	}},
	{"a worker hangs: before hello, while loading, in a step, as a whole, when it is to stop", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart", "pipeline.TestHangingStepIsFoundByItsLimit", "pipeline.TestFrozenWorkerIsReplaced",
		"pipeline.TestWorkerThatIgnoresStoppingIsKilled",
	}},
	{"a worker floods standard error", []string{"pipeline.TestFloodOfStderrHoldsUpNothing"}},
	{"a worker answers garbage, exits with 0 or another status, panics, loses its device", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart", "pipeline.TestRequestIsRunAgainAfterADeath",
	}},
	{"a worker crashes in C++", []string{"cmd/omni-worker.TestCrashInTheLibraryLeavesShortLastWords"}},
	{"a worker cannot be started, or started again", []string{
		"pipeline.TestOpenReportsWhyAStageCannotStart", "pipeline.TestWorkerThatCannotComeBackFailsWhoeverWaits", "pipeline.TestRestartsPauseLongerUpToALimit",
	}},
	{"the parent is killed", []string{"pipeline.TestNoWorkerOutlivesItsParent"}},
	{"profile control comes into a flood of requests", []string{"pipeline.TestProfileControlIsNotDelayedByRequests", "pipeline/worker.TestProfileControlComesBeforeQueuedInput"}},
	{"a request never ends", []string{"pipeline.TestRequestThatNeverEndsDumpsTheFlightRecorders", "pipeline.TestSlowRequestsInAStepThatDoesNotEnd"}},
	{"the clocks of workers differ from the pipeline's", []string{"pipeline.TestLedgerOfWorkersWithOtherClocks", "pipeline.TestMergedTraceOfWorkersWithOtherClocks"}},
	{"SIGINT and SIGTERM in every phase, and a second one", []string{
		"cmd/omni-run.TestSignalsStopCleanlyInEveryPhase", "cmd/omni-run.TestSignalWhileTheResultsAreWritten", "cmd/omni-run.TestSignalBetweenResults",
		"cmd/omni-run.TestTheSecondSignalStopsAtOnceInEveryPhase", "cmd/omni-run.TestTheSecondSignalEndsFrozenWorkers",
	}},
	{"SIGINT and SIGTERM to a server: idle, with a request, with a profile, without all its workers, and a second one", []string{
		"cmd/omni-run.TestServerStopsCleanlyAtASignal", "cmd/omni-run.TestServerCutsOffWhatDoesNotEnd", "cmd/omni-run.TestTheSecondSignalStopsAServerAtOnce",
		"cmd/omni-run.TestSignalToAServerWithoutAllItsWorkers",
	}},
	{"the output or profile folder is missing, a file, read-only, full", []string{
		"cmd/omni-run.TestFoldersThatCannotBeWritten", "pipeline.TestFullDiskOfOneStage", "cmd/omni-worker.TestSessionOfRealWorkersThatLosesOne",
	}},
	{"a limit of memory is hit while loading", []string{"pipeline.TestOpenReportsWhyAStageCannotStart", "cmd/omni-worker.TestMemoryLimitWhileLoadingIsAnErrorOfAStage", "cmd/omni-worker.TestMemoryLimitAtTheStartIsAnErrorOfAStage"}},
	{"a checkpoint is cut short", []string{"cmd/omni-worker.TestTruncatedCheckpointIsAnErrorOfAStage"}},
	{"a request is cancelled in every stage, or its reader leaves", []string{
		"pipeline.TestCancelInEveryStage", "pipeline.TestBreakingOutOfAStreamCancelsIt", "cmd/omni-worker.TestCancelInEveryRealStage",
	}},
	{"a client of the server goes away", []string{"api.TestAClientThatGoesAwayIsInNoFurtherStep", "api.TestSoak"}},
	{"opening is cancelled, or the pipeline closed under requests", []string{"pipeline.TestOpenCanBeCancelledWhileLoading", "pipeline.TestCloseEndsRequestsAndRefusesNewOnes"}},
	{"an engine fails one sequence of a batch", []string{"pipeline.TestErrorOfOneSequenceConcernsItAlone"}},
	{"a reader is slow", []string{"pipeline.TestSlowReaderHoldsUpItsOwnRequestOnly"}},
	{"a thousand requests with kills among them", []string{"pipeline.TestThousandRequestsWithRandomKills"}},
}

// The table must not promise tests that are gone.
func TestEveryFaultHasItsTest(t *testing.T) {
	have := map[string]bool{}
	for _, p := range packages(t) {
		eachTestOf(t, p, func(name string) { have[p.name()+"."+name] = true })
	}
	for _, fault := range faults {
		for _, test := range fault.tests {
			if !have[test] {
				t.Errorf("%s: there is no %s", fault.what, test)
			}
		}
	}
}

func eachTestOf(t *testing.T, p goPackage, visit func(name string)) {
	t.Helper()
	eachFileOf(t, p, parser.SkipObjectResolution, func(_ string, file *ast.File) {
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv == nil && isTest.MatchString(function.Name.Name) {
				visit(function.Name.Name)
			}
		}
	})
}
