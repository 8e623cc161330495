// Package config holds what a user may set about a pipeline: the stages' deployment (device, threads, element
// type, batch size, profiler) and the parameters of sampling.
//
// A deployment is the built-in default of a model family, overlaid with a YAML file. The file may be written in
// either of vLLM-Omni's two forms, `stage_args` (older) or `stages` (newer); where both have a word for the same
// thing, both words are accepted. Decoding is strict: every key is either applied, or known to have no effect here
// (then it is listed in Config.Notes), or refused with a sentence that says why, with its line and path. All
// faults of a file are reported together. A Config is read-only after Load or Decode.
//
// SamplingParams has pointer fields, so that "not set" differs from zero: the parameters of a request are laid
// over those of the YAML file, which are laid over the family's. A later layer wins field by field.
package config
