package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Folder is a checkpoint on disk. It is read-only and safe for concurrent use.
type Folder struct {
	// Model is what the user called it: a path or an id.
	Model string
	// Path is the absolute folder that holds config.json.
	Path string
	// Info is what config.json says about the model as a whole.
	Info Info
}

// Info is the part of config.json that is common to all models.
type Info struct {
	Architectures []string
	ModelType     string
	// DType is the element type of the weights as config.json spells it ("bfloat16"), "" if it does not say.
	// transformers 5 writes "dtype", transformers 4 wrote "torch_dtype".
	DType string
}

// Open reads config.json of the folder that model names; see Resolve for the names. env looks up environment
// variables, usually os.Getenv.
func Open(model string, env func(string) string) (*Folder, error) {
	path, err := Resolve(model, env)
	if err != nil {
		return nil, err
	}
	f := &Folder{Model: model, Path: path}
	raw := struct {
		Architectures []string `json:"architectures"`
		ModelType     string   `json:"model_type"`
		DType         string   `json:"dtype"`
		TorchDType    string   `json:"torch_dtype"`
	}{}
	if err := f.ReadJSON("config.json", &raw); err != nil {
		return nil, err
	}
	dtype := raw.DType
	if dtype == "" {
		dtype = raw.TorchDType
	}
	f.Info = Info{
		Architectures: raw.Architectures,
		ModelType:     raw.ModelType,
		DType:         strings.TrimPrefix(dtype, "torch."),
	}
	return f, nil
}

// File returns the path of a file of the folder.
func (f *Folder) File(name string) string { return filepath.Join(f.Path, name) }

// Has reports whether the folder holds that file.
func (f *Folder) Has(name string) bool {
	info, err := os.Stat(f.File(name))
	return err == nil && info.Mode().IsRegular()
}

// Read returns the contents of a file. An absent file is an error that errors.Is calls fs.ErrNotExist.
func (f *Folder) Read(name string) ([]byte, error) {
	data, err := os.ReadFile(f.File(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("checkpoint %s has no %s: %w", f.Path, name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoint file: %w", err)
	}
	return data, nil
}

// ReadJSON decodes a JSON file of the folder into v. A fault names the file, and the line where it is known.
func (f *Folder) ReadJSON(name string, v any) error {
	data, err := f.Read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", f.File(name), locate(data, err))
	}
	return nil
}

// Require reports every file of names that the folder lacks, in one error.
func (f *Folder) Require(names ...string) error {
	var missing []string
	for _, name := range names {
		if !f.Has(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("checkpoint %s is incomplete: it has no %s", f.Path, strings.Join(missing, ", no "))
}

// RequireWeights reports a folder without safetensors. Their contents are checked by the engines.
func (f *Folder) RequireWeights() error {
	for _, name := range []string{"model.safetensors", "model.safetensors.index.json"} {
		if f.Has(name) {
			return nil
		}
	}
	return fmt.Errorf("checkpoint %s has no weights: want model.safetensors or model.safetensors.index.json", f.Path)
}

// locate adds the line to a fault of the JSON decoder.
func locate(data []byte, err error) error {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	if offset < 0 || offset > int64(len(data)) {
		return err
	}
	line := 1 + strings.Count(string(data[:offset]), "\n")
	return fmt.Errorf("line %d: %w", line, err)
}
