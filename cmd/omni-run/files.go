package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/media"
)

// maxStemBytes keeps names below the 255 bytes of common file systems.
const maxStemBytes = 200

// outputFolder is where results go. It never replaces a file.
type outputFolder struct {
	dir   string
	stems map[string]string // request id to the part of the file names that stands for it
}

// newOutputFolder makes the folder, gives an id to every request that has none, and chooses a file name for each.
// It finds out before the model is loaded whether results could be written.
func newOutputFolder(dir string, requests []pipeline.Request) (*outputFolder, error) {
	if err := makeWritable("--output-dir", dir); err != nil {
		return nil, err
	}
	folder := &outputFolder{dir: dir, stems: map[string]string{}}
	return folder, folder.name(requests)
}

// makeWritable makes the folder that a flag names and finds out whether files can be made in it.
func makeWritable(flag, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return usagef("%s: %w", flag, err)
	}
	probe, err := os.CreateTemp(dir, ".omni-run-*")
	if err != nil {
		return usagef("%s: cannot write there: %w", flag, err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// name fills in missing ids, 0, 1, ... as far as they are free, and refuses ids whose files exist.
func (f *outputFolder) name(requests []pipeline.Request) error {
	owner := map[string]string{} // stem to request id
	for _, request := range requests {
		if request.ID == "" {
			continue
		}
		stem := fileStem(request.ID)
		if other, taken := owner[stem]; taken {
			return usagef("request ids %q and %q would share the file %s.txt; make them differ in letters or digits", other, request.ID, stem)
		}
		if path := f.existing(stem); path != "" {
			return usagef("%s is there already: move it away, or choose another --output-dir or request_id", path)
		}
		owner[stem], f.stems[request.ID] = request.ID, stem
	}
	next := 0
	for i := range requests {
		if requests[i].ID != "" {
			continue
		}
		for stem := strconv.Itoa(next); owner[stem] != "" || f.existing(stem) != ""; stem = strconv.Itoa(next) {
			next++
		}
		id := strconv.Itoa(next)
		requests[i].ID, owner[id], f.stems[id] = id, id, id
	}
	return nil
}

// existing returns a file of that stem that is there, "" if there is none.
func (f *outputFolder) existing(stem string) string {
	for _, path := range []string{f.textPath(stem), f.audioPath(stem)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return path
		}
	}
	return ""
}

func (f *outputFolder) textPath(stem string) string { return filepath.Join(f.dir, stem+".txt") }
func (f *outputFolder) audioPath(stem string) string {
	return filepath.Join(f.dir, "output_"+stem+".wav")
}

// write writes the files of one request and returns their paths. What it wrote before an error stays.
func (f *outputFolder) write(request pipeline.Request, response *pipeline.Response) (paths []string, err error) {
	stem := f.stems[request.ID]
	if wants(request, pipeline.ModalityText) {
		path := f.textPath(stem)
		if err := writeNew(path, response.Text); err != nil {
			return paths, err
		}
		paths = append(paths, path)
	}
	if response.Audio != nil {
		path := f.audioPath(stem)
		if err := media.WriteWAVFile(path, response.Audio.SampleRate, response.Audio.PCM); err != nil {
			return paths, err
		}
		response.Audio.Path = path
		paths = append(paths, path)
	}
	return paths, nil
}

// writeNew writes a file that must not exist; after an error there is none.
func writeNew(path, text string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write text: %w", err)
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write text: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

func wants(request pipeline.Request, modality string) bool {
	return len(request.Modalities) == 0 || slices.Contains(request.Modalities, modality)
}

// fileStem makes a file name of a request id: letters, digits, dot, dash and underscore stay, everything else becomes
// an underscore, and it can neither be hidden nor leave the folder.
func fileStem(id string) string {
	stem := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, strings.ToValidUTF8(id, "_"))
	if strings.HasPrefix(stem, ".") {
		stem = "_" + stem[1:]
	}
	if len(stem) > maxStemBytes {
		stem = strings.ToValidUTF8(stem[:maxStemBytes], "")
	}
	return stem
}
