package config

import (
	"errors"
	"fmt"
	"os"
)

// Load reads a YAML file over base, the built-in configuration of the model's family. Base is not modified.
func Load(path string, base *Config) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("stage configuration: %w", err)
	}
	return Decode(data, path, base)
}

// Decode reads a YAML text over base; file is its name in errors. Stages that the text does not list are left out.
// The error joins all faults.
func Decode(data []byte, file string, base *Config) (*Config, error) {
	root, ok, err := parse(data, file)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s: the file is empty, want a list under stages", file)
	}
	r := &reader{d: root.d, base: base, out: &Config{Source: file}}
	r.readRoot(root)
	if len(r.d.faults) > 0 {
		return nil, errors.Join(r.d.faults...)
	}
	r.out.Notes = r.d.notes
	if err := r.out.Validate(); err != nil {
		var faults []error
		for _, fault := range unjoin(err) {
			faults = append(faults, fmt.Errorf("%s: %w", file, fault))
		}
		return nil, errors.Join(faults...)
	}
	return r.out, nil
}

// reader turns the nodes of a file into a Config.
type reader struct {
	d    *decoder
	base *Config
	out  *Config
	// dtype is the file's element type for all stages that name none.
	dtype string
	// mode is the file's mode for all stages that can work on chunks and name none.
	mode string
	// connectors are the names declared under connectors.
	connectors map[string]bool
}

// rootKeys are applied in this order, whatever their order in the file: stages refer to what comes before.
var rootKeys = []string{"dtype", "connectors", "runtime", "stages", "stage_args", "edges"}

func (r *reader) readRoot(root node) {
	byKey := map[string]node{}
	for _, e := range root.entries() {
		switch {
		case contains(rootKeys, e.key):
			byKey[e.key] = e.value
		case e.key == "async_chunk":
			r.readAsyncChunk(e.value)
		case e.key == "platforms":
			e.value.note("overrides for other platforms")
		case readForeign(e):
		default:
			e.value.fault("%w", unknownKey(e.key, append([]string{"async_chunk", "platforms"}, rootKeys...)))
		}
	}
	if n, ok := byKey["dtype"]; ok {
		r.dtype = readDType(n)
	}
	if n, ok := byKey["connectors"]; ok {
		r.readConnectors(n)
	}
	if n, ok := byKey["runtime"]; ok {
		r.readRuntime(n)
	}
	stages, newer := byKey["stages"]
	older, old := byKey["stage_args"]
	switch {
	case newer && old:
		older.fault("stages and stage_args are two spellings of one list, want one of them")
	case newer:
		r.readStages(stages)
	case old:
		r.readStages(older)
	case len(r.d.faults) == 0:
		r.d.faults = append(r.d.faults, fmt.Errorf("%s: there is no list of stages (stages, or stage_args)", r.d.file))
	}
	if n, ok := byKey["edges"]; ok {
		r.readEdges(n)
	}
}

// readRuntime reads the older form's section for the whole pipeline.
func (r *reader) readRuntime(n node) {
	for _, e := range n.entries() {
		switch e.key {
		case "connectors":
			r.readConnectors(e.value)
		case "edges":
			defer r.readEdges(e.value)
		case "enabled":
			if on, ok := e.value.boolean(); ok && !on {
				e.value.fault("false is not supported: every stage is a process of its own")
			}
		case "defaults":
			r.readRuntimeDefaults(e.value)
		default:
			e.value.fault("%w", unknownKey(e.key, []string{"connectors", "edges", "enabled", "defaults"}))
		}
	}
}

func (r *reader) readRuntimeDefaults(n node) {
	for _, e := range n.entries() {
		switch e.key {
		case "window_size":
			readWindow(e.value)
		case "max_inflight":
			e.value.note("every stage works on up to max_batch_size requests at once")
		default:
			e.value.fault("%w", unknownKey(e.key, []string{"window_size", "max_inflight"}))
		}
	}
}

func readWindow(n node) {
	if size, ok := n.integer(); ok && size != -1 {
		n.fault("%d is not supported, want -1", size)
	}
}

// readConnectors accepts declarations of what this pipeline has built in.
func (r *reader) readConnectors(n node) {
	if n.isNull() {
		return
	}
	for _, e := range n.entries() {
		if r.connectors == nil {
			r.connectors = map[string]bool{}
		}
		r.connectors[e.key] = true
		readConnector(e.value)
	}
}

// readConnector checks one {name, extra}.
func readConnector(n node) {
	named := false
	for _, e := range n.entries() {
		switch e.key {
		case "name":
			name, ok := e.value.text()
			named = true
			if ok && name != "SharedMemoryConnector" {
				e.value.fault("%s is not supported: stages of one host hand on over a socket and shared memory (SharedMemoryConnector)", name)
			}
		case "extra":
			for _, x := range e.value.entries() {
				if x.key == "shm_threshold_bytes" {
					x.value.note("the threshold for shared memory is built in")
				}
				noteChunkKeys(x)
			}
		default:
			e.value.fault("%w", unknownKey(e.key, []string{"name", "extra"}))
		}
	}
	if !named {
		n.fault("a connector needs a name")
	}
}

// readEdges checks that the file's edges are the model's.
func (r *reader) readEdges(n node) {
	for _, element := range n.elements() {
		from, to, okFrom, okTo := 0, 0, false, false
		for _, e := range element.entries() {
			switch e.key {
			case "from":
				from, okFrom = e.value.small()
			case "to":
				to, okTo = e.value.small()
			case "window_size":
				readWindow(e.value)
			default:
				e.value.fault("%w", unknownKey(e.key, []string{"from", "to", "window_size"}))
			}
		}
		if !okFrom || !okTo {
			element.fault("an edge needs from and to")
			continue
		}
		if stage, known := r.base.Stage(to); !known || !contains(stage.Inputs, from) {
			element.fault("the model has no edge from stage %d to stage %d", from, to)
		}
	}
}

func contains[T comparable](list []T, value T) bool {
	for _, v := range list {
		if v == value {
			return true
		}
	}
	return false
}
