package random

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
)

// A shard is one safetensors file to be: which tensors it holds and where.
type shard struct {
	name    string
	header  []byte // length prefix included
	tensors []*tensorSpec
	offsets []int64 // of each tensor, from the start of the file
	size    int64
}

// layOut distributes tensors over files, in order and by size, and computes every offset.
func layOut(tensors []tensorSpec, enc encoder, shards int, metadata map[string]string) ([]shard, error) {
	var total int64
	for i := range tensors {
		total += int64(tensors[i].elements() * enc.size)
	}
	if shards > len(tensors) {
		return nil, fmt.Errorf("%d shards: the checkpoint has %d tensors", shards, len(tensors))
	}
	files := make([]shard, shards)
	file, done := 0, int64(0)
	for i := range tensors {
		// A tensor belongs to the shard that holds its middle byte; no shard stays empty.
		bytes := int64(tensors[i].elements() * enc.size)
		wanted := int((done + bytes/2) * int64(shards) / total)
		if wanted > file && len(files[file].tensors) > 0 || len(tensors)-i <= shards-1-file {
			file++
		}
		files[file].tensors = append(files[file].tensors, &tensors[i])
		done += bytes
	}
	for i := range files {
		files[i].name = "model.safetensors"
		if shards > 1 {
			files[i].name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)
		}
		if err := files[i].place(enc, metadata); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// place computes the header and the offsets. The header is padded with blanks to a multiple of 8, as the format asks.
func (s *shard) place(enc encoder, metadata map[string]string) error {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	var header bytes.Buffer
	write := func(name string, value any) error {
		data, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("header of %s: %w", s.name, err)
		}
		fmt.Fprintf(&header, "%s:%s", strconv.Quote(name), data)
		return nil
	}
	header.WriteByte('{')
	if err := write("__metadata__", metadata); err != nil {
		return err
	}
	var offset int64
	for _, t := range s.tensors {
		s.offsets = append(s.offsets, offset)
		end := offset + int64(t.elements()*enc.size)
		header.WriteByte(',')
		if err := write(t.Name, entry{enc.tag, t.Shape, [2]int64{offset, end}}); err != nil {
			return err
		}
		offset = end
	}
	header.WriteByte('}')
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	s.header = binary.LittleEndian.AppendUint64(nil, uint64(header.Len()))
	s.header = append(s.header, header.Bytes()...)
	for i := range s.offsets {
		s.offsets[i] += int64(len(s.header))
	}
	s.size = int64(len(s.header)) + offset
	return nil
}

// shardIndex returns model.safetensors.index.json.
func shardIndex(files []shard) map[string]any {
	names := map[string]string{}
	var total int64
	for _, file := range files {
		for _, t := range file.tensors {
			names[t.Name] = file.name
		}
		total += file.size - int64(len(file.header))
	}
	return map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": names}
}

// A weightWriter fills the shards' files block by block on all cores.
type weightWriter struct {
	dir      string
	enc      encoder
	options  Options
	total    int64
	done     int64
	progress sync.Mutex // guards done and the calls of options.Progress
}

// write creates every file. The first error stops it; so does the context.
func (w *weightWriter) write(ctx context.Context, files []shard) error {
	for i := range files {
		w.total += files[i].size
	}
	if err := checkSpace(w.dir, w.total); err != nil {
		return err
	}
	for i := range files {
		if err := w.writeFile(ctx, &files[i]); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes one shard.
func (w *weightWriter) writeFile(ctx context.Context, s *shard) (err error) {
	path := filepath.Join(w.dir, s.name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.WriteAt(s.header, 0); err != nil {
		return w.explain(path, err)
	}
	w.report(int64(len(s.header)))
	if err := w.fillAll(ctx, file, s); err != nil {
		return w.explain(path, err)
	}
	return nil
}

// fillAll computes and writes the blocks of a file, as many at once as there are cores.
func (w *weightWriter) fillAll(ctx context.Context, file *os.File, s *shard) error {
	type job struct {
		filler *filler
		block  int
		offset int64
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan job)
	var workers sync.WaitGroup
	var broken atomic.Bool
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			var buffer []byte
			for j := range jobs {
				if broken.Load() {
					continue
				}
				buffer = j.filler.fill(j.block, buffer)
				if _, err := file.WriteAt(buffer, j.offset); err != nil {
					broken.Store(true)
					cancel(err)
					continue
				}
				w.report(int64(len(buffer)))
			}
		})
	}
	for i, t := range s.tensors {
		f := newFiller(t, w.enc, w.options.Preset, w.options.Seed)
		for block := range f.blocks() {
			if ctx.Err() != nil {
				break
			}
			jobs <- job{f, block, s.offsets[i] + int64(block)*blockElements*int64(w.enc.size)}
		}
	}
	close(jobs)
	workers.Wait()
	return context.Cause(ctx)
}

// report counts written bytes.
func (w *weightWriter) report(bytes int64) {
	w.progress.Lock()
	defer w.progress.Unlock()
	w.done += bytes
	if w.options.Progress != nil {
		w.options.Progress(w.done, w.total)
	}
}

// explain adds to an error of writing what was being written and how much of it there is.
func (w *weightWriter) explain(path string, err error) error {
	return fmt.Errorf("write %s (the checkpoint needs %d bytes): %w", path, w.total, err)
}
