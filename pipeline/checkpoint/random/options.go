package random

import (
	"errors"
	"fmt"
	"slices"
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
	Family   string // "qwen2_5_omni", the only one so far; "" means it
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

// Families returns the model families that can be written.
func Families() []string { return []string{familyQwen25Omni} }

// Presets returns the names of the presets of a family, aliases included, or nil for an unknown family.
func Presets(family string) []string {
	if family != familyQwen25Omni {
		return nil
	}
	names := make([]string, 0, len(qwen25OmniPresets)+1)
	names = append(names, presetAlias)
	for _, p := range qwen25OmniPresets {
		names = append(names, p.Name)
	}
	return names
}

// resolve fills in what the caller left to the preset and reports every wrong field at once.
func (o Options) resolve() (Options, *omniPreset, error) {
	if o.Family == "" {
		o.Family = familyQwen25Omni
	}
	if !slices.Contains(Families(), o.Family) {
		return o, nil, fmt.Errorf("%w family %q: known are %s", ErrUnknown, o.Family, strings.Join(Families(), ", "))
	}
	if o.Preset == "" || o.Preset == presetAlias {
		o.Preset = qwen25OmniPresets[0].Name
	}
	preset := findPreset(o.Preset)
	if preset == nil {
		return o, nil, fmt.Errorf("%w preset %q of family %s: known are %s",
			ErrUnknown, o.Preset, o.Family, strings.Join(Presets(o.Family), ", "))
	}
	var faults []error
	switch o.Spelling {
	case SpellingPreset:
		o.Spelling = preset.Spelling
	case Transformers4, Transformers5:
	default:
		faults = append(faults, fmt.Errorf("%w spelling %d: 4 or 5 (transformers 4 or 5)", ErrUnknown, o.Spelling))
	}
	switch {
	case o.Shards == 0:
		o.Shards = preset.Shards
	case o.Shards < 0 || o.Shards > MaxShards:
		faults = append(faults, fmt.Errorf("%d shards: 1 to %d", o.Shards, MaxShards))
	}
	switch o.DType {
	case "":
		o.DType = preset.DType
	case Float32, Float16, BFloat16:
	default:
		faults = append(faults, fmt.Errorf("%w dtype %q: %s, %s or %s", ErrUnknown, o.DType, Float32, Float16, BFloat16))
	}
	return o, preset, errors.Join(faults...)
}
