package random

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// spk_dict.pt is what torch.save writes for {name: {"cond": tensor, "ref_mel": tensor, "bos_token": int}}: a zip
// archive, uncompressed, with a pickle that refers to one file of raw bytes per tensor. This file writes just that,
// with the opcodes that Python's pickler uses, memo included, so that readers meet here what they meet in the wild.

// A voice is one entry of spk_dict.pt.
type voice struct {
	name     string
	cond     voiceTensor
	refMel   voiceTensor
	bosToken int
}

// voiceTensor is a contiguous float32 tensor.
type voiceTensor struct {
	shape  []int
	values []float32
}

// newVoices draws the speakers of a preset. A reference mel lies in the range of log-mel spectrograms of speech.
func newVoices(p *omniPreset, seed uint64, firstID int) []voice {
	draw := func(name string, mean, std float64, shape ...int) voiceTensor {
		spec := tensorSpec{Name: "spk_dict." + name, Shape: shape, Mean: mean, Std: std}
		f := newFiller(&spec, encoderFor(Float32), p.Name, seed)
		values := make([]float32, 0, spec.elements())
		for block := range f.blocks() {
			data := f.fill(block, nil)
			for i := 0; i < len(data); i += 4 {
				values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(data[i:])))
			}
		}
		return voiceTensor{shape, values}
	}
	voices := make([]voice, len(p.Speakers))
	for i, s := range p.Speakers {
		voices[i] = voice{
			name:   s.Name,
			cond:   draw(s.Name+".cond", 0, 1, 1, p.DiT.SpeakerEmb),
			refMel: draw(s.Name+".ref_mel", -5, 2, 1, s.Frames, p.DiT.Mel),
			// Speakers stand two ids apart, the first one last: Chelsie 151872, Ethan 151870.
			bosToken: firstID + 2*(len(p.Speakers)-1-i),
		}
	}
	return voices
}

// The opcodes of pickle protocol 2 that are needed.
const (
	opProto      = 0x80
	opStop       = '.'
	opMark       = '('
	opEmptyDict  = '}'
	opEmptyTuple = ')'
	opSetItem    = 's'
	opSetItems   = 'u'
	opTuple      = 't'
	opTuple1     = 0x85
	opTuple2     = 0x86
	opTuple3     = 0x87
	opNewFalse   = 0x89
	opGlobal     = 'c'
	opReduce     = 'R'
	opPersistent = 'Q'
	opText       = 'X'
	opInt1       = 'K'
	opInt2       = 'M'
	opInt4       = 'J'
	opPut1       = 'q'
	opPut4       = 'r'
	opGet1       = 'h'
	opGet4       = 'j'
)

// A pickler writes the one pickle of spk_dict.pt.
type pickler struct {
	bytes.Buffer
	memo     map[string]int // texts and globals that were written before, by content
	memoSize int
	storages []voiceTensor
}

// save writes the dictionary.
func (p *pickler) save(voices []voice) {
	p.memo = map[string]int{}
	p.Write([]byte{opProto, 2})
	p.dict(len(voices), func(i int) {
		v := &voices[i]
		p.text(v.name)
		fields := []func(){
			func() { p.text("cond"); p.tensor(v.cond) },
			func() { p.text("ref_mel"); p.tensor(v.refMel) },
			func() { p.text("bos_token"); p.integer(v.bosToken) },
		}
		p.dict(len(fields), func(j int) { fields[j]() })
	})
	p.WriteByte(opStop)
}

// dict writes a dictionary; item(i) writes the key and the value of item i. One item is set without a mark.
func (p *pickler) dict(items int, item func(i int)) {
	p.WriteByte(opEmptyDict)
	p.put()
	if items == 1 {
		item(0)
		p.WriteByte(opSetItem)
		return
	}
	p.WriteByte(opMark)
	for i := range items {
		item(i)
	}
	p.WriteByte(opSetItems)
}

// tensor writes a call of torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks).
func (p *pickler) tensor(t voiceTensor) {
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.WriteByte(opMark)
	p.WriteByte(opMark)
	p.text("storage")
	p.global("torch", "FloatStorage")
	p.text(fmt.Sprint(len(p.storages)))
	p.text("cpu")
	p.integer(len(t.values))
	p.WriteByte(opTuple)
	p.put()
	p.WriteByte(opPersistent)
	p.integer(0)
	strides := make([]int, len(t.shape))
	for i, step := len(t.shape)-1, 1; i >= 0; i-- {
		strides[i] = step
		step *= t.shape[i]
	}
	p.tuple(t.shape)
	p.tuple(strides)
	p.WriteByte(opNewFalse)
	p.global("collections", "OrderedDict")
	p.WriteByte(opEmptyTuple)
	p.WriteByte(opReduce)
	p.put()
	p.WriteByte(opTuple)
	p.put()
	p.WriteByte(opReduce)
	p.put()
	p.storages = append(p.storages, t)
}

// tuple writes a short tuple of integers.
func (p *pickler) tuple(values []int) {
	short := map[int]byte{1: opTuple1, 2: opTuple2, 3: opTuple3}
	op, ok := short[len(values)]
	if !ok {
		op = opTuple
		p.WriteByte(opMark)
	}
	for _, v := range values {
		p.integer(v)
	}
	p.WriteByte(op)
	p.put()
}

// integer writes a non-negative number in its shortest form.
func (p *pickler) integer(v int) {
	switch {
	case v < 1<<8:
		p.Write([]byte{opInt1, byte(v)})
	case v < 1<<16:
		p.Write(binary.LittleEndian.AppendUint16([]byte{opInt2}, uint16(v)))
	default:
		p.Write(binary.LittleEndian.AppendUint32([]byte{opInt4}, uint32(v)))
	}
}

// text writes a string, or where it stands in the memo.
func (p *pickler) text(s string) {
	if p.recall("text " + s) {
		return
	}
	p.Write(binary.LittleEndian.AppendUint32([]byte{opText}, uint32(len(s))))
	p.WriteString(s)
	p.memo["text "+s] = p.put()
}

// global writes the name of a Python object, or where it stands in the memo.
func (p *pickler) global(module, name string) {
	line := module + "\n" + name + "\n"
	if p.recall(line) {
		return
	}
	p.WriteByte(opGlobal)
	p.WriteString(line)
	p.memo[line] = p.put()
}

// put stores the top of the stack in the memo.
func (p *pickler) put() int {
	p.slot(opPut1, opPut4, p.memoSize)
	p.memoSize++
	return p.memoSize - 1
}

// recall writes a reference to the memo and says whether there is one.
func (p *pickler) recall(key string) bool {
	slot, ok := p.memo[key]
	if ok {
		p.slot(opGet1, opGet4, slot)
	}
	return ok
}

// slot writes an opcode that names a slot of the memo.
func (p *pickler) slot(short, long byte, slot int) {
	if slot < 1<<8 {
		p.Write([]byte{short, byte(slot)})
		return
	}
	p.Write(binary.LittleEndian.AppendUint32([]byte{long}, uint32(slot)))
}

// storageAlignment is where tensors' bytes start in the archive, so that they can be mapped.
const storageAlignment = 64

// speakerFile returns spk_dict.pt.
func speakerFile(voices []voice) ([]byte, error) {
	var p pickler
	p.save(voices)
	archive := archiver{}
	archive.zip = zip.NewWriter(&archive.out)
	archive.add("data.pkl", p.Bytes())
	archive.add(".format_version", []byte("1"))
	archive.add(".storage_alignment", fmt.Append(nil, storageAlignment))
	archive.add("byteorder", []byte("little"))
	for i, t := range p.storages {
		raw := make([]byte, 0, 4*len(t.values))
		for _, v := range t.values {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
		archive.add(fmt.Sprintf("data/%d", i), raw)
	}
	archive.add("version", []byte("3\n"))
	archive.add(".data/serialization_id", fmt.Appendf(nil, "%040d", crc32.ChecksumIEEE(p.Bytes())))
	return archive.close()
}

// An archiver writes uncompressed, aligned members below the archive's own folder; the first error stays.
type archiver struct {
	out bytes.Buffer
	zip *zip.Writer
	err error
}

// add appends a member.
func (a *archiver) add(name string, data []byte) {
	if a.err != nil {
		return
	}
	if a.err = a.zip.Flush(); a.err != nil {
		return
	}
	const localHeader, fieldHeader = 30, 4
	full := "spk_dict/" + name
	start := a.out.Len() + localHeader + len(full) + fieldHeader
	padding := (storageAlignment - start%storageAlignment) % storageAlignment
	extra := binary.LittleEndian.AppendUint16([]byte("FB"), uint16(padding))
	extra = append(extra, bytes.Repeat([]byte("Z"), padding)...)
	member, err := a.zip.CreateRaw(&zip.FileHeader{
		Name: full, Method: zip.Store, CRC32: crc32.ChecksumIEEE(data),
		CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)), Extra: extra,
	})
	if err == nil {
		_, err = member.Write(data)
	}
	a.err = err
}

// close returns the archive.
func (a *archiver) close() ([]byte, error) {
	if a.err == nil {
		a.err = a.zip.Close()
	}
	return a.out.Bytes(), a.err
}
