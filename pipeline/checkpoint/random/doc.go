// Package random writes small checkpoints with random weights in the released Hugging Face layout, so that the whole
// pipeline can be tried and tested without a download: `omni-run make-checkpoint` is a thin wrapper around Write.
//
// A checkpoint is described by three layers of plain data:
//
//   - a preset (presets.go) names every dimension of every network of a family;
//   - the family's own code turns a preset into config files (qwen2_5_omni.go, config_omni.go) and a list of tensors, each
//     with a shape and a distribution (tensors*.go); families.go is the table of families;
//   - the writer (write.go, safetensors.go) streams those tensors to disk and puts the folder in place atomically.
//
// # Random numbers
//
// The weights depend on the preset, the seed and the tensor's name and on nothing else: not on the machine, the number
// of cores, the shards or the order of writing. A tensor is cut into blocks of 2^18 elements; block b of tensor t is
// filled from its own ChaCha8 stream (math/rand/v2), whose 32-byte key is the SHA-256 of
// "omni random checkpoint 1\n<preset>\n<seed>\n<t>\n<b>". Each element takes 16 bits r of the stream (little endian)
// and becomes mean + std*z(r), where z(r) is the standard normal quantile of (r+1/2)/65536 rounded to a multiple of
// 2^-12. The distribution is therefore normal, bounded by 4.33 standard deviations.
//
// # Scales
//
// Weights are drawn with 1/sqrt(fan-in) so that activations keep their size through any number of layers. The rows of
// the output heads that end a reply (the text's and the codec's end tokens) are drawn wider than the others, so that
// replies end by themselves, after some tens of tokens; and the vocoder's last layer is narrow, so that speech is
// audible noise, neither silent nor clipped.
package random
