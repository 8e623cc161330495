// Package checkpoint finds a checkpoint on this machine and reads the small files that describe it.
//
// A model is named by a folder, or by a Hugging Face id ("org/name", optionally "org/name@revision") whose snapshot
// lies in the local cache. Nothing is ever downloaded: a miss is an error that says where was looked and which
// command fetches it. Weights are not read here; that is the engines' business.
//
// Subpackage random writes small random checkpoints in the same layout.
package checkpoint
