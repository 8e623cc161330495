package golden_test

import (
	"testing"

	"github.com/omni-run/omni/pipeline/family/familytest"
)

// goldens holds a folder per family with a folder per checkpoint.
const goldens = "../../pipeline/family/testdata"

// tinyA are the cases of one checkpoint, for tests of something that only its family has.
func tinyA(t testing.TB) []*familytest.Case {
	t.Helper()
	return familytest.Read(t, goldens+"/qwen2_5_omni/tiny-a")
}
