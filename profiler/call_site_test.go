package profiler

import (
	"regexp"
	"testing"
)

func TestStepsAndWaitsCarryTheirCallSites(t *testing.T) {
	site := regexp.MustCompile(`^profiler/(call_site|bench)_test\.go\(\d+\): (TestStepsAndWaits|step)`)
	for name, test := range map[string]struct {
		begin func(*bench) error
		want  int
	}{
		"with_stack":    {func(b *bench) error { return b.Start(start(nil)) }, 2},
		"without_stack": {func(b *bench) error { return b.Start(start(func(c *Config) { c.TorchProfilerWithStack = false })) }, 0},
		"in a ring": {func(b *bench) error {
			c := FromDir("/profiles")
			c.RingSeconds = 10
			return b.StartRing(c)
		}, 2},
		"nothing records": {func(*bench) error { return nil }, 0},
	} {
		b := newBench()
		if err := test.begin(b); err != nil {
			t.Fatal(err)
		}
		if err := b.Idle(); err != nil {
			t.Fatal(err)
		}
		b.step(t)
		if len(b.sites) != test.want {
			t.Errorf("%s: got %v", name, b.sites)
		}
		for annotation, got := range b.sites {
			if !site.MatchString(got) {
				t.Errorf("%s: %s is opened at %q", name, annotation, got)
			}
		}
	}
}

func TestCallSiteThatIsRefusedEndsTheSession(t *testing.T) {
	b := newBench()
	b.fail = "site"
	if err := b.Start(start(nil)); err != nil {
		t.Fatal(err)
	}
	if err := b.StepBegin(); err == nil || b.Report().State != StateFailed {
		t.Errorf("got %v, %+v", err, b.Report())
	}
}

func TestShortNames(t *testing.T) {
	for function, want := range map[string]string{
		"github.com/omni-run/omni/pipeline/worker.(*loop).step": "step",
		"github.com/omni-run/omni/pipeline/worker.Run":          "Run",
		"main.main":         "main",
		"main.main.func1":   "main.func1",
		"a.b/c.Type.Method": "Type.Method",
		"a/c.(*T[...]).Do":  "Do",
		"":                  "",
	} {
		if got := shortName(function); got != want {
			t.Errorf("%q: got %q, want %q", function, got, want)
		}
	}
	if got := callSite(0); got == "" {
		t.Error("an unknown place has no description")
	}
}
