package config

import "strings"

// readSpeech reads a setting of a stage that can work on chunks.
func (s *stageReader) readSpeech(n node, setting string) {
	if !s.stage.Chunks {
		n.fault("stage %d (%s) does not work on chunks of codes", s.stage.ID, s.stage.Name)
		return
	}
	if setting == "mode" {
		if mode, ok := n.text(); ok {
			s.setMode(n, mode)
		}
		return
	}
	size, ok := n.integer()
	if !ok || !s.once(n, setting, size) {
		return
	}
	switch setting {
	case "initial_codec_chunk_frames":
		s.stage.Speech.InitialChunk = &size
	case "codec_chunk_frames":
		s.stage.Speech.Chunk = &size
	case "codec_right_context_frames":
		s.stage.Speech.RightContext = &size
	}
}

func (s *stageReader) setMode(n node, mode string) {
	if err := CheckMode(mode); err != nil {
		n.fault("%w", err)
	} else if s.once(n, "mode", mode) {
		s.stage.Speech.Mode = mode
	}
}

// readLeftContext accepts vLLM-Omni's word for what need not be bounded here.
func (s *stageReader) readLeftContext(n node, _ string) {
	if _, ok := n.integer(); ok {
		n.note("what lies before a chunk is kept as it was computed, and seen whole")
	}
}

// readAsyncChunk reads vLLM-Omni's word for the modes: of one stage, which may name its mode as well.
func (s *stageReader) readAsyncChunk(n node, _ string) {
	if on, ok := n.boolean(); ok && s.stage.Chunks {
		s.setMode(n, asyncMode(on))
	}
}

// readAsyncChunk reads the same of all stages, of which each may name another.
func (r *reader) readAsyncChunk(n node) {
	if on, ok := n.boolean(); ok {
		r.mode = asyncMode(on)
	}
}

func asyncMode(on bool) string {
	if on {
		return ModeStream
	}
	return ModeFull
}

// noteChunkKeys says where the sizes of chunks belong, which vLLM-Omni takes from a connector.
func noteChunkKeys(extra entry) {
	if strings.HasPrefix(extra.key, "codec_") || extra.key == "initial_codec_chunk_frames" {
		extra.value.note("chunks are set at the stage that makes sound of codes")
	}
}
