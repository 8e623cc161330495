package render

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/ledger"
)

func TestDuration(t *testing.T) {
	tests := map[float64]string{0.0012: "1.2 us", 0.9: "900.0 us", 1.234: "1.23 ms", 150.4: "150 ms", 12345: "12.35 s"}
	for ms, want := range tests {
		require.Equal(t, want, duration(ms))
	}
}

func TestShorten(t *testing.T) {
	require.Equal(t, "aten::mm", shorten("aten::mm", 8))
	long := shorten(strings.Repeat("é", 30)+"_for_cpu", 20)
	require.Len(t, []rune(long), 20)
	require.True(t, strings.HasSuffix(long, "...or_cpu"), long)
}

func TestBar(t *testing.T) {
	parts := []ledger.Part{
		{Kind: ledger.Transfer, StartNS: 100, EndNS: 110},
		{Kind: ledger.Wait, StartNS: 110, EndNS: 400},
		{Kind: ledger.Queue, StartNS: 400, EndNS: 401},
		{Kind: ledger.Compute, StartNS: 401, EndNS: 740},
	}
	got := bar(parts, 100, 740)
	require.Len(t, got, waterfallWidth)
	require.Equal(t, "-"+strings.Repeat(".", 29)+strings.Repeat("#", 34), got)
	require.Equal(t, strings.Repeat(" ", waterfallWidth), bar(nil, 100, 740))
}

func TestSummaryOfLittle(t *testing.T) {
	var out bytes.Buffer
	s := &analysis.Summary{
		Session: "s1.1", Stages: []analysis.StageSummary{{Worker: "stage-0", Events: 9, Disordered: 2}},
		Requests: []analysis.RequestSummary{{ID: "a", E2EMS: 5, Error: "it died"}, {ID: "b", E2EMS: 5}},
	}
	require.NoError(t, Summary(&out, s, 1))
	require.Contains(t, out.String(), "stage-0: 2 of 9 events overlap others")
	require.Contains(t, out.String(), "failed: it died")
	require.Contains(t, out.String(), "and 1 more requests")
	require.NotContains(t, out.String(), "NaN")
}

// What GPUs did is in a table and in columns; what they did not report is no number.
func TestSummaryWithGPUs(t *testing.T) {
	watts, joules := 301.5, 12.25
	s := &analysis.Summary{
		Session: "s1.1", Trigger: "request \"a\" took 3s", Stages: []analysis.StageSummary{{Worker: "stage-0", Dropped: 7, GPU: &analysis.GPUUse{
			Device: 1, Samples: 4, PowerWatts: &watts, EnergyJoules: &joules, Throttled: 0.25, Throttle: []string{"power cap", "sync boost"},
		}}, {Worker: "stage-1"}},
	}
	var out, table bytes.Buffer
	require.NoError(t, Summary(&out, s, 1))
	require.Contains(t, out.String(), "from the flight recorder (request \"a\" took 3s)")
	require.Contains(t, out.String(), "stage-0: 7 events were dropped")
	require.Regexp(t, `stage-0 +1 +- +302 W +- +12.2 J +- +- +- +- +25.0 % +power cap, sync boost`, out.String())
	require.NoError(t, SummaryCSV(&table, s))
	require.Contains(t, table.String(), ",1,,301.5,12.25,,,0.25,power cap;sync boost\n")
	require.Contains(t, table.String(), ",,,,,,,,\n")
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrorsAreReturned(t *testing.T) {
	s := &analysis.Summary{Stages: []analysis.StageSummary{{Worker: "stage-0"}}}
	require.ErrorIs(t, Summary(full{}, s, 1), errFull)
	require.ErrorIs(t, SummaryCSV(full{}, s), errFull)
	require.ErrorIs(t, Ops(full{}, nil, 0), errFull)
	require.ErrorIs(t, OpsCSV(full{}, nil), errFull)
}

func TestFlameEscapesNames(t *testing.T) {
	root := &analysis.Flame{Name: "session <b>", TotalNS: 1000, Children: []*analysis.Flame{
		{Name: "a;b\n</script><script>alert(1)</script>", Category: "cpu_op", Calls: 1, TotalNS: 999, SelfNS: 999_000},
		{Name: "narrow", Category: "kernel", TotalNS: 0},
	}}
	var page bytes.Buffer
	require.NoError(t, FlameHTML(&page, root))
	require.NotContains(t, page.String(), "<script>alert")
	require.NotContains(t, page.String(), "<b>")
	require.NotContains(t, page.String(), "ZgotmplZ")
	require.NotContains(t, page.String(), "narrow")
	var folded bytes.Buffer
	require.NoError(t, Folded(&folded, root))
	require.Equal(t, "a:b </script><script>alert(1)</script> 999\n", folded.String())
}

func TestPageEscapesNames(t *testing.T) {
	s := &analysis.Summary{
		Session: "<s1>", Stages: []analysis.StageSummary{{Worker: "<w>", Top: []*analysis.Op{{Name: "<op>"}}}},
		Requests: []analysis.RequestSummary{{ID: "<r>", ArrivedNS: 1, E2EMS: 5, Error: "<e>", Stages: []analysis.RequestPart{
			{Name: "<n>", Parts: []ledger.Part{{Kind: ledger.Queue, StartNS: 1, EndNS: 5_000_001}}},
		}}},
	}
	var out bytes.Buffer
	require.NoError(t, Page(&out, PageInput{Summary: s, Timeline: &analysis.Timeline{EndNS: 1}, Limit: 5}))
	for _, name := range []string{"s1", "w", "op", "r", "n"} {
		require.Contains(t, out.String(), "&lt;"+name+"&gt;")
		require.NotContains(t, out.String(), "<"+name+">")
	}
	require.NotContains(t, out.String(), "ZgotmplZ")
}
