package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/render/uplot"
	"github.com/omni-run/omni/profiler/trace"
)

// writeProfile writes a small session of two stages: steps of ops, and two requests. slower makes every op that much
// slower.
func writeProfile(t *testing.T, slower float64) string {
	t.Helper()
	const stamp = 1795311375000000000
	dir := t.TempDir()
	for stage, worker := range []string{"stage-0", "stage-1"} {
		w, err := trace.Create(profiler.TracePath(dir, worker, "s1", stamp, true))
		require.NoError(t, err)
		for name, value := range map[string]string{
			"baseTimeNanoseconds": "1795311375000000000",
			"distributedInfo":     `{"rank": ` + string(rune('0'+stage)) + `}`,
			"omni":                `{"session": "s1", "worker": "` + worker + `", "stage": ` + string(rune('0'+stage)) + `}`,
		} {
			require.NoError(t, w.Member(name, jsontext.Value(value)))
		}
		pid, tid := trace.Number(int64(500+stage)), trace.Number(int64(500+stage))
		add := func(category, name string, start, duration int64) {
			require.NoError(t, w.Write(&trace.Event{
				Phase: trace.Complete, Category: category, Name: name, Process: pid, Thread: tid, Time: start, Duration: duration,
			}))
		}
		at := int64(stage) * 20_000_000
		for i := range 20 {
			noise := int64(i%5) * 10_000
			mm, relu := int64(slower*float64(2_000_000+noise)), int64(300_000)
			add("user_annotation", "ProfilerStep#"+string(rune('a'+i)), at, mm+relu+200_000)
			add("user_annotation", "model.layers", at+50_000, mm+relu+100_000)
			add("cpu_op", "aten::linear", at+100_000, mm)
			add("cpu_op", "aten::addmm", at+150_000, mm-100_000)
			add("cpu_op", "aten::relu", at+100_000+mm, relu)
			at += mm + relu + 1_000_000
		}
		require.NoError(t, w.Write(&trace.Event{
			Phase: trace.Complete, Category: "Trace", Name: "PyTorch Profiler (0)", Process: trace.ID{Text: "Spans", IsText: true},
			Thread: trace.ID{Text: "PyTorch Profiler", IsText: true}, Duration: 100_000_000,
		}))
		require.NoError(t, w.Commit())
	}
	var requests []ledger.Request
	for i, id := range []string{"first", "second"} {
		ms := func(n int64) int64 { return stamp + (n+int64(i)*10)*1_000_000 }
		requests = append(requests, ledger.Request{
			ID: id, ArrivedNS: ms(0), EnteredNS: ms(1), DoneNS: ms(80), PromptTokens: 5,
			Stages: []ledger.Stage{
				{
					ID: 0, Name: "thinker", DispatchedNS: ms(2), ReceivedNS: ms(3), FirstInputNS: ms(3), LastInputNS: ms(3), FirstComputeNS: ms(5),
					LastComputeNS: ms(40), FirstOutputNS: ms(8), LastOutputNS: ms(40), DoneNS: ms(41), QueueNS: 2e6, ComputeNS: 35e6, TransferNS: 1e6,
					Steps: 10, Tokens: 10, BytesIn: 100, BytesOut: 4096,
				},
				{
					ID: 1, Name: "talker", From: []int{0}, DispatchedNS: ms(2), ReceivedNS: ms(3), FirstInputNS: ms(9), LastInputNS: ms(42),
					FirstComputeNS: ms(20), LastComputeNS: ms(78), FirstOutputNS: ms(25), LastOutputNS: ms(78), DoneNS: ms(79), QueueNS: 5e6, WaitNS: 20e6,
					ComputeNS: 50e6, TransferNS: 3e6, Steps: 10, Tokens: 10, BytesIn: 4096, BytesOut: 80,
				},
			},
		})
	}
	require.NoError(t, ledger.Write(ledger.Path(dir, "s1", stamp), ledger.Session{Session: "s1", StampNS: stamp, Running: 1}, requests))
	return dir
}

func TestProfileMerge(t *testing.T) {
	dir := writeProfile(t, 1)
	got := runCommand(t, &fakeOmni{}, "", "profile", "merge", dir)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, filepath.Join(dir, "s1.1795311375000000000", "merged.trace.json.gz")+"\n", got.stdout)
	require.FileExists(t, got.stdout[:len(got.stdout)-1])
	require.Contains(t, got.stderr, "202 events, 2 requests, 2 arrows between stages")
	require.Contains(t, got.stderr, "the ledger lacks 1 requests that had not ended")

	out := filepath.Join(t.TempDir(), "all.json")
	for _, args := range [][]string{
		{"profile", "merge", "--json", dir, "-o", out},
		{"profile", "merge", dir, "--session=s1", "--output", out, "--json"},
	} {
		got = runCommand(t, &fakeOmni{}, "", args...)
		require.Zero(t, got.code, got.stderr)
		require.EqualValues(t, 202, got.object(t)["events"])
		text, err := os.ReadFile(out)
		require.NoError(t, err)
		require.True(t, json.Valid(text))
	}
}

func TestProfileCommandFaults(t *testing.T) {
	dir := writeProfile(t, 1)
	tests := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"merge"}, 2, "merge: got 0 arguments, want the folder of the profile"},
		{[]string{"merge", "a", "b"}, 2, "got 2 arguments"},
		{[]string{"merge", dir, "--colour"}, 2, "flag provided but not defined: --colour"},
		{[]string{"merge", dir, "-o"}, 2, "flag needs an argument: -o"},
		{[]string{"merge", dir, "--json=maybe"}, 2, `invalid value "maybe" for flag --json`},
		{[]string{"merge", dir, "--session", "s9"}, 1, `"s9" with complete traces`},
		{[]string{"merge", t.TempDir()}, 1, "there are no traces in"},
		{[]string{"merge", "/missing"}, 1, "no such file"},
		{[]string{"summary", dir, "--json", "--csv"}, 2, "exclude each other"},
		{[]string{"top", dir, "--by", "name"}, 2, `cannot be sorted by "name"; want self, total, calls or device`},
		{[]string{"top", dir, "--stage", "7"}, 2, "no trace of stage 7"},
		{[]string{"diff", dir}, 2, "got 1 arguments, want the sessions before and after"},
		{[]string{"diff", dir, dir, "--threshold", "much"}, 2, `--threshold is "much", want a percentage`},
		{[]string{"diff", dir, dir, "--alpha", "3"}, 2, "--alpha is 3"},
		{[]string{"diff", dir, dir + "@s1"}, 2, "diff: session s1.1795311375000000000 of " + dir + " is on both sides"},
		{[]string{"diff", dir, dir + "@s7"}, 2, `"s7" with complete traces`},
		{[]string{"diff", dir, "/missing"}, 2, "no such file"},
		{[]string{"diff", dir, "/missing-*"}, 2, "no folder matches /missing-*"},
		{[]string{"diff", dir, "/[" + "@s1"}, 2, "syntax error in pattern"},
		{[]string{"diff", dir, t.TempDir() + "@*"}, 2, "there are no traces in"},
		{[]string{"flame", dir, "--stage", "7"}, 2, "no trace of stage 7"},
		{[]string{"flame", dir, "-o", "/proc/no/x.html"}, 1, "/proc/no"},
		{[]string{"critical-path", dir, "--request", "third"}, 1, `has no request "third"`},
		{[]string{"nonsense"}, 2, `unknown command "nonsense"; want one of merge`},
	}
	for _, test := range tests {
		got := runCommand(t, &fakeOmni{}, "", append([]string{"profile"}, test.args...)...)
		require.Equal(t, test.code, got.code, test.args)
		require.Contains(t, got.stderr, test.want, test.args)
	}
	require.Contains(t, runCommand(t, &fakeOmni{}, "", "profile", "merge", dir, "--help").stdout, "Usage:")
}

// What the reading commands print is compared with goldens; their JSON holds what programs look for.
func TestProfileReports(t *testing.T) {
	dir := writeProfile(t, 1)
	goldens := map[string][]string{
		"profile-summary.txt":               {"summary", dir, "--top", "2"},
		"profile-summary.csv":               {"summary", dir, "--csv"},
		"profile-critical-path.txt":         {"critical-path", dir, "--limit", "4"},
		"profile-critical-path-request.txt": {"critical-path", dir, "--request", "second"},
		"profile-critical-path.csv":         {"critical-path", dir, "--csv"},
		"profile-top.txt":                   {"top", dir, "--limit", "3"},
		"profile-top.csv":                   {"top", dir, "--csv", "--annotations", "--by", "calls", "--stage", "1"},
	}
	for file, args := range goldens {
		got := runCommand(t, &fakeOmni{}, "", append([]string{"profile"}, args...)...)
		require.Zero(t, got.code, got.stderr)
		golden(t, file, got.stdout)
	}
	summary := runCommand(t, &fakeOmni{}, "", "profile", "summary", dir, "--json").object(t)
	stage := summary["stages"].([]any)[1].(map[string]any)
	require.Equal(t, "talker", stage["name"])
	require.InDelta(t, stage["window_ms"], stage["busy_ms"].(float64)+stage["waiting_ms"].(float64)+stage["idle_ms"].(float64), 1e-6)
	require.Len(t, summary["requests"], 2)
	var top []map[string]any
	require.NoError(t, json.Unmarshal([]byte(runCommand(t, &fakeOmni{}, "", "profile", "top", dir, "--json").stdout), &top))
	require.Equal(t, "aten::addmm", top[0]["ops"].([]any)[0].(map[string]any)["name"])
}

func TestProfileDiff(t *testing.T) {
	before, after := writeProfile(t, 1), writeProfile(t, 1.2)
	same := runCommand(t, &fakeOmni{}, "", "profile", "diff", before, writeProfile(t, 1)+"@-1")
	require.Zero(t, same.code, same.stderr)
	require.Contains(t, same.stdout, "\n0 regressions")
	slower := runCommand(t, &fakeOmni{}, "", "profile", "diff", before, after)
	require.Equal(t, 1, slower.code)
	require.Contains(t, slower.stderr, "omni-run: 4 regressions")
	golden(t, "profile-diff.txt", slower.stdout)
	csv := runCommand(t, &fakeOmni{}, "", "profile", "diff", before, after, "--csv")
	require.Equal(t, 1, csv.code)
	golden(t, "profile-diff.csv", csv.stdout)
	tolerated := runCommand(t, &fakeOmni{}, "", "profile", "diff", before, after, "--threshold", "30%", "--json")
	require.Zero(t, tolerated.code, tolerated.stderr)
	require.Len(t, tolerated.object(t)["stages"], 2)
}

// Sides of several sessions: patterns, lists and all sessions of a folder.
func TestProfileDiffOfSeveralSessions(t *testing.T) {
	root := t.TempDir()
	for name, slow := range map[string]float64{"main-1": 1, "main-2": 1.01, "main-3": 1.02, "branch-1": 1.2, "branch-2": 1.21, "branch,3": 1.22} {
		require.NoError(t, os.Rename(writeProfile(t, slow), filepath.Join(root, name)))
	}
	at := func(names ...string) string {
		for i := range names {
			names[i] = filepath.Join(root, names[i])
		}
		return strings.Join(names, ",")
	}
	for _, sides := range [][2]string{
		{at("main-*"), at("branch?*")},
		{at("main-1", "main-2@s1", "main-3@*", "main-*"), at("branch-[12]", "branch-1")},
	} {
		got := runCommand(t, &fakeOmni{}, "", "profile", "diff", sides[0], sides[1], "--json")
		require.Equal(t, 1, got.code, got.stderr)
		stage := got.object(t)["stages"].([]any)[0].(map[string]any)
		require.Equal(t, "sessions", stage["test"])
		require.EqualValues(t, 60, stage["steps_before"], "each session once")
	}
	same := runCommand(t, &fakeOmni{}, "", "profile", "diff", at("main-1", "main-3"), at("main-2"))
	require.Zero(t, same.code, same.stderr)
	require.Contains(t, same.stdout, "runs of equal code can differ")
	got := runCommand(t, &fakeOmni{}, "", "profile", "diff", at("branch,3"), at("branch-1"))
	require.Zero(t, got.code, got.stderr)
}

// The parts of the critical path sum up to the end-to-end time.
func TestProfileCriticalPath(t *testing.T) {
	path := runCommand(t, &fakeOmni{}, "", "profile", "critical-path", writeProfile(t, 1), "--json").object(t)
	sum := 0.0
	for _, part := range path["parts"].([]any) {
		sum += part.(map[string]any)["total_ms"].(float64)
	}
	require.InDelta(t, path["e2e_ms"], sum, 1e-6)
	require.Len(t, path["requests"], 2)
}

func TestProfileFlame(t *testing.T) {
	dir := writeProfile(t, 1)
	folded := runCommand(t, &fakeOmni{}, "", "profile", "flame", dir, "--folded")
	require.Zero(t, folded.code, folded.stderr)
	golden(t, "profile-flame.folded", folded.stdout)
	got := runCommand(t, &fakeOmni{}, "", "profile", "flame", dir)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, filepath.Join(dir, "s1.1795311375000000000", "flame.html")+"\n", got.stdout)
	page, err := os.ReadFile(strings.TrimSpace(got.stdout))
	require.NoError(t, err)
	golden(t, "profile-flame.html", string(page))
	tree := runCommand(t, &fakeOmni{}, "", "profile", "flame", dir, "--json", "--stage", "1").object(t)
	require.Len(t, tree["children"], 1)
	csv := runCommand(t, &fakeOmni{}, "", "profile", "flame", dir, "--csv")
	require.Contains(t, csv.stdout, "stage-0;ProfilerStep;model.layers;aten::linear,cpu_op,20,40400000,2000000\n")
}

func TestProfileReport(t *testing.T) {
	dir := writeProfile(t, 1)
	got := runCommand(t, &fakeOmni{}, "", "profile", "report", dir, "--requests", "1")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, filepath.Join(dir, "s1.1795311375000000000", "report.html")+"\n", got.stdout)
	page, err := os.ReadFile(strings.TrimSpace(got.stdout))
	require.NoError(t, err)
	own := strings.NewReplacer(uplot.Script, "(the library)", uplot.Style, "(its style)").Replace(string(page))
	golden(t, "profile-report.html", own)
	require.NotRegexp(t, `(src|href)=`, own, "the page needs nothing else")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))
	got = runCommand(t, &fakeOmni{}, "", "profile", "report", dir, "-o", filepath.Join(dir, "x.html"))
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stderr, "has no ledger")
}

func TestProfileRepair(t *testing.T) {
	dir := writeProfile(t, 1)
	got := runCommand(t, &fakeOmni{}, "", "profile", "repair", dir)
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stderr, "nothing to repair")
	path := profiler.TracePath(dir, "stage-0", "s1", 1795311375000000000, true)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".tmp", text[:len(text)-30], 0o600))
	require.NoError(t, os.Remove(path))
	got = runCommand(t, &fakeOmni{}, "", "profile", "summary", dir)
	require.Contains(t, got.stderr, "was never completed")
	require.NotContains(t, got.stdout, "stage-0")
	page := func() string {
		text, err := os.ReadFile(filepath.Join(dir, "s1.1795311375000000000", "report.html"))
		require.NoError(t, err)
		return string(text)
	}
	require.Zero(t, runCommand(t, &fakeOmni{}, "", "profile", "report", dir).code)
	require.Contains(t, page(), "This session is not complete")
	got = runCommand(t, &fakeOmni{}, "", "profile", "repair", dir)
	require.Equal(t, 1, got.code, "the file is new")
	got = runCommand(t, &fakeOmni{}, "", "profile", "repair", dir, "--force")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, path+"\n", got.stdout)
	require.NotContains(t, page(), "This session is not complete")
	merged, err := trace.Open(filepath.Join(dir, "s1.1795311375000000000", "merged.trace.json.gz"))
	require.NoError(t, err)
	defer func() { require.NoError(t, merged.Close()) }()
	require.NoError(t, merged.Start())
	require.Contains(t, string(merged.Header()["omni"]), filepath.Base(path))
	got = runCommand(t, &fakeOmni{}, "", "profile", "summary", dir)
	require.Contains(t, got.stdout, "stage-0")
	// A single file, by a name that goes a long way round.
	require.NoError(t, os.Rename(path, path+".tmp"))
	got = runCommand(t, &fakeOmni{}, "", "profile", "repair", filepath.Dir(dir)+"/./"+filepath.Base(path+".tmp"), "--force")
	require.Equal(t, 1, got.code, "it is not there")
	got = runCommand(t, &fakeOmni{}, "", "profile", "repair", dir+"/./"+filepath.Base(path+".tmp"), "--force")
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stderr, "made again: ")
}
