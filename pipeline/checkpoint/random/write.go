package random

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// The keys of the safetensors metadata by which Write knows its own work.
const (
	metadataMaker = "made_by"
	maker         = "omni-run make-checkpoint"
)

// A Summary says what Write has written.
type Summary struct {
	Dir        string
	Options    Options // every field resolved; Progress is nil
	Tensors    int
	Parameters int64
	Bytes      int64 // of all weights files
	Files      []string
}

// Write makes a checkpoint in dir. The folder appears complete or not at all: everything is written to a hidden folder
// beside it, which then takes its name. A folder that Write made before is replaced; anything else that is not empty is
// left alone and reported.
func Write(ctx context.Context, dir string, options Options) (*Summary, error) {
	options, chosen, err := options.resolve()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	replace, err := replaceable(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return nil, err
	}
	summary, err := writeAll(ctx, temporary, options, chosen)
	if err == nil {
		err = os.Chmod(temporary, 0o755)
	}
	if err == nil {
		err = takePlace(temporary, dir, replace)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temporary))
	}
	summary.Dir = dir
	return summary, nil
}

// writeAll writes every file of the checkpoint into an existing folder.
func writeAll(ctx context.Context, dir string, options Options, p preset) (*Summary, error) {
	tokenizer, err := newTokenizer(p.vocabulary())
	if err != nil {
		return nil, err
	}
	ids := tokenizer.ids()
	tensors := p.tensors(ids)
	enc := encoderFor(options.DType)
	shards, err := layOut(tensors, enc, options.Shards, options.metadata())
	if err != nil {
		return nil, err
	}
	files, err := p.files(options, tokenizer)
	if err != nil {
		return nil, err
	}
	if len(shards) > 1 {
		files["model.safetensors.index.json"], err = jsonFile(shardIndex(shards))
		if err != nil {
			return nil, err
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	writer := weightWriter{dir: dir, enc: enc, options: options}
	if err := writer.write(ctx, shards); err != nil {
		return nil, err
	}
	options.Progress = nil
	summary := &Summary{Options: options, Tensors: len(tensors), Bytes: writer.total}
	for i := range tensors {
		summary.Parameters += int64(tensors[i].elements())
	}
	summary.Files, err = fileNames(dir)
	return summary, err
}

// metadata returns what the weights files say about themselves.
func (o Options) metadata() map[string]string {
	return map[string]string{
		"format": "pt", metadataMaker: maker, "family": o.Family, "preset": o.Preset,
		"seed": strconv.FormatUint(o.Seed, 10), "spelling": strconv.Itoa(int(o.Spelling)), "dtype": o.DType,
		"shards": strconv.Itoa(o.Shards),
	}
}

// Written returns the options with which Write made the checkpoint in dir, and false if it was not Write.
func Written(dir string) (Options, bool) {
	weights, err := filepath.Glob(filepath.Join(dir, "model*.safetensors"))
	if err != nil || len(weights) == 0 {
		return Options{}, false
	}
	sort.Strings(weights)
	metadata, err := readMetadata(weights[0])
	if err != nil || metadata[metadataMaker] != maker {
		return Options{}, false
	}
	seed, seedErr := strconv.ParseUint(metadata["seed"], 10, 64)
	spelling, spellingErr := strconv.Atoi(metadata["spelling"])
	shards, shardsErr := strconv.Atoi(metadata["shards"])
	if errors.Join(seedErr, spellingErr, shardsErr) != nil || len(weights) != shards {
		return Options{}, false
	}
	return Options{
		Family: metadata["family"], Preset: metadata["preset"], Seed: seed, Spelling: Spelling(spelling),
		Shards: shards, DType: metadata["dtype"],
	}, true
}

// readMetadata reads the metadata of a safetensors file.
func readMetadata(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var header struct {
		Metadata map[string]string `json:"__metadata__"`
	}
	var length uint64
	err = binary.Read(file, binary.LittleEndian, &length)
	if err == nil {
		const limit = 64 << 20 // of a file that is something else
		err = json.NewDecoder(io.LimitReader(file, int64(min(length, limit)))).Decode(&header)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return header.Metadata, nil
}

// replaceable says whether dir exists and may be replaced.
func replaceable(dir string) (bool, error) {
	names, err := fileNames(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case len(names) == 0:
		return true, nil
	}
	if _, ok := Written(dir); !ok {
		return false, fmt.Errorf("%s is not empty and was not made by %s: it holds %s; choose another folder",
			dir, maker, abbreviate(names))
	}
	if foreign := slices.DeleteFunc(names, isOurs); len(foreign) > 0 {
		return false, fmt.Errorf("%s holds a checkpoint made by %s and also %s: move that away or choose another folder",
			dir, maker, abbreviate(foreign))
	}
	return true, nil
}

// isOurs says whether Write writes files of this name.
func isOurs(name string) bool {
	switch name {
	case "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
		"chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json", "spk_dict.pt",
		"model.safetensors.index.json":
		return true
	}
	return strings.HasPrefix(name, "model") && strings.HasSuffix(name, ".safetensors")
}

// abbreviate joins the first few names.
func abbreviate(names []string) string {
	const few = 3
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// takePlace gives a finished folder its name. What had the name before is moved aside first and removed last.
func takePlace(finished, dir string, replace bool) error {
	if !replace {
		return os.Rename(finished, dir)
	}
	old := finished + "-old"
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(finished, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	return os.RemoveAll(old)
}

// fileNames returns the sorted names in a folder.
func fileNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names, nil
}

// Sum returns a checkpoint's fingerprint: the SHA-256 of what `sha256sum *` prints in its folder. Golden files name
// the checkpoint that they belong to by it.
func Sum(dir string) (string, error) {
	names, err := fileNames(dir)
	if err != nil {
		return "", err
	}
	all := sha256.New()
	for _, name := range names {
		one := sha256.New()
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		_, err = io.Copy(one, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return "", err
		}
		fmt.Fprintf(all, "%x  %s\n", one.Sum(nil), name)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// jsonFile renders a file of JSON: indented, keys sorted, raw UTF-8.
func jsonFile(value any) ([]byte, error) {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return nil, err
	}
	return []byte(text.String()), nil
}
