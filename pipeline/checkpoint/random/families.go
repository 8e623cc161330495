package random

// family is one row of the table: the checkpoints of one model family.
type family struct {
	name    string
	presets []preset // the first is also called presetAlias
}

// preset is one checkpoint: every size, and what the sizes lead to.
type preset interface {
	// usual holds the preset's name and what it chooses where Options leave the choice.
	usual() Options
	vocabulary() int // tokens of the tokenizer before the added ones
	// tensors are all tensors in the order in which they are stored.
	tensors(ids tokenIDs) []tensorSpec
	// files are all files but the weights; options are resolved.
	files(o Options, t *tokenizer) (map[string][]byte, error)
}

// families is the table of what can be written. The first is the default.
var families = []family{
	{name: familyQwen25Omni, presets: presetsOf(qwen25OmniPresets)},
}

// presetsOf are the elements of a family's own list.
func presetsOf[T any, P interface {
	*T
	preset
}](list []T) []preset {
	presets := make([]preset, len(list))
	for i := range list {
		presets[i] = P(&list[i])
	}
	return presets
}

// findFamily returns the row of that name, or nil.
func findFamily(name string) *family {
	for i := range families {
		if families[i].name == name {
			return &families[i]
		}
	}
	return nil
}

// find returns the preset of that name, or nil.
func (f *family) find(name string) preset {
	if name == presetAlias {
		return f.presets[0]
	}
	for _, p := range f.presets {
		if p.usual().Preset == name {
			return p
		}
	}
	return nil
}

// Families returns the model families that can be written.
func Families() []string {
	names := make([]string, len(families))
	for i, f := range families {
		names[i] = f.name
	}
	return names
}

// Presets returns the names of the presets of a family, aliases included, or nil for an unknown family.
func Presets(family string) []string {
	f := findFamily(family)
	if f == nil {
		return nil
	}
	names := []string{presetAlias}
	for _, p := range f.presets {
		names = append(names, p.usual().Preset)
	}
	return names
}
