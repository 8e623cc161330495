package random

import (
	"errors"
	"fmt"
	"strings"
)

// Spelling says in which words config.json is written: the names that transformers 4 used, which the released
// repositories have, or those of transformers 5, which new repositories have.
type Spelling int

// The spellings. SpellingPreset leaves the choice to the preset.
const (
	SpellingPreset Spelling = 0
	Transformers4  Spelling = 4
	Transformers5  Spelling = 5
)

// The element types of a checkpoint's tensors, in the spelling of config.json.
const (
	Float32  = "float32"
	Float16  = "float16"
	BFloat16 = "bfloat16"
)

// MaxShards bounds Options.Shards: names are numbered with five digits, and every shard is an open file.
const MaxShards = 512

// Options describe the checkpoint to write. The zero value of a field means "as the preset says".
type Options struct {
	Family   string // one of Families(); "" means the first
	Preset   string // one of Presets(Family); "" means "tiny"
	Seed     uint64 // other seeds give other weights with the same shapes
	Spelling Spelling
	Shards   int    // 1 is one model.safetensors; more are shards with an index
	DType    string // Float32, Float16 or BFloat16
	// Progress is told how many bytes of weights are written; it may be called from several goroutines, one at a time.
	Progress func(done, total int64)
}

// ErrUnknown marks an unknown family, preset, spelling or dtype.
var ErrUnknown = errors.New("unknown")

// resolve fills in what the caller left to the preset and reports every wrong field at once.
func (o Options) resolve() (Options, preset, error) {
	if o.Family == "" {
		o.Family = families[0].name
	}
	row := findFamily(o.Family)
	if row == nil {
		return o, nil, fmt.Errorf("%w family %q: known are %s", ErrUnknown, o.Family, strings.Join(Families(), ", "))
	}
	if o.Preset == "" {
		o.Preset = presetAlias
	}
	chosen := row.find(o.Preset)
	if chosen == nil {
		return o, nil, fmt.Errorf("%w preset %q of family %s: known are %s",
			ErrUnknown, o.Preset, o.Family, strings.Join(Presets(o.Family), ", "))
	}
	usual := chosen.usual()
	o.Preset = usual.Preset
	var faults []error
	switch o.Spelling {
	case SpellingPreset:
		o.Spelling = usual.Spelling
	case Transformers4, Transformers5:
	default:
		faults = append(faults, fmt.Errorf("%w spelling %d: 4 or 5 (transformers 4 or 5)", ErrUnknown, o.Spelling))
	}
	switch {
	case o.Shards == 0:
		o.Shards = usual.Shards
	case o.Shards < 0 || o.Shards > MaxShards:
		faults = append(faults, fmt.Errorf("%d shards: 1 to %d", o.Shards, MaxShards))
	}
	switch o.DType {
	case "":
		o.DType = usual.DType
	case Float32, Float16, BFloat16:
	default:
		faults = append(faults, fmt.Errorf("%w dtype %q: %s, %s or %s", ErrUnknown, o.DType, Float32, Float16, BFloat16))
	}
	return o, chosen, errors.Join(faults...)
}
