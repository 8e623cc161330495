package random

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
)

const (
	blockElements = 1 << 18 // elements per ChaCha8 stream, see doc.go
	quantiles     = 1 << 16
	quantileStep  = 1.0 / 4096
)

// normalQuantiles returns z(r) for every r, see doc.go. The rounding makes the table the same on every machine,
// whatever the last bit of its math library.
var normalQuantiles = sync.OnceValue(func() []float64 {
	z := make([]float64, quantiles)
	for r := range quantiles / 2 {
		p := (float64(r) + 0.5) / quantiles
		v := math.Sqrt2 * math.Erfinv(2*p-1)
		v = math.Round(v/quantileStep) * quantileStep
		z[r], z[quantiles-1-r] = v, -v
	}
	return z
})

// An encoder turns numbers into the bytes of one element type.
type encoder struct {
	name string // in config.json
	tag  string // in safetensors headers
	size int    // bytes per element
	put  func(dst []byte, v float64)
}

// encoderFor returns the encoder of a dtype that resolve has accepted.
func encoderFor(dtype string) encoder {
	switch dtype {
	case BFloat16:
		return encoder{BFloat16, "BF16", 2, func(dst []byte, v float64) { binary.LittleEndian.PutUint16(dst, bfloat16(float32(v))) }}
	case Float16:
		return encoder{Float16, "F16", 2, func(dst []byte, v float64) { binary.LittleEndian.PutUint16(dst, float16(float32(v))) }}
	default:
		return encoder{Float32, "F32", 4, func(dst []byte, v float64) { binary.LittleEndian.PutUint32(dst, math.Float32bits(float32(v))) }}
	}
}

// bfloat16 rounds to nearest, ties to even. The value is finite.
func bfloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// float16 rounds to nearest, ties to even; values below the normal range become subnormal, values above it infinite.
func float16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits >> 16 & 0x8000)
	magnitude := bits & 0x7fffffff
	switch {
	case magnitude >= 0x477ff000: // rounds to 65520 or more
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: adding 1/2 lets the float unit round at 2^-24
		return sign | uint16(math.Float32bits(math.Float32frombits(magnitude)+0.5)-0x3f000000)
	}
	magnitude += 0xfff + magnitude>>13&1
	return sign | uint16((magnitude-0x38000000)>>13)
}

// A filler writes blocks of one tensor. It is used by one goroutine at a time per call of fill, and by many at once.
type filler struct {
	tensor *tensorSpec
	enc    encoder
	key    string // what names the tensor in its streams' keys
	plain  []byte // the encoded value of every r for Gain 1; nil where a table costs more than it saves
}

// newFiller prepares the blocks of a tensor.
func newFiller(t *tensorSpec, enc encoder, preset string, seed uint64) *filler {
	f := &filler{tensor: t, enc: enc, key: fmt.Sprintf("omni random checkpoint 1\n%s\n%d\n%s\n", preset, seed, t.Name)}
	if t.Values == nil && t.elements() > quantiles {
		f.plain = make([]byte, quantiles*enc.size)
		for r, z := range normalQuantiles() {
			enc.put(f.plain[r*enc.size:], t.Mean+t.Std*z)
		}
	}
	return f
}

// blocks returns the number of blocks.
func (f *filler) blocks() int { return (f.tensor.elements() + blockElements - 1) / blockElements }

// fill returns the bytes of a block, in a part of buffer if that is large enough.
func (f *filler) fill(block int, buffer []byte) []byte {
	first := block * blockElements
	count := min(blockElements, f.tensor.elements()-first)
	size := f.enc.size
	if cap(buffer) < count*size {
		buffer = make([]byte, blockElements*size)
	}
	out := buffer[:count*size]
	if f.tensor.Values != nil {
		for i, v := range f.tensor.Values[first : first+count] {
			f.enc.put(out[i*size:], v)
		}
		return out
	}
	random := f.stream(block, count)
	switch {
	case f.plain != nil && size == 2:
		for i := range count {
			r := int(binary.LittleEndian.Uint16(random[2*i:]))
			copy(out[2*i:2*i+2], f.plain[2*r:])
		}
	case f.plain != nil:
		for i := range count {
			r := int(binary.LittleEndian.Uint16(random[2*i:]))
			copy(out[4*i:4*i+4], f.plain[4*r:])
		}
	default:
		f.each(random, func(i int, z float64) { f.enc.put(out[i*size:], f.tensor.Mean+f.tensor.Std*z) })
	}
	f.widen(first, count, random, out)
	return out
}

// stream returns count 16-bit random numbers of a block.
func (f *filler) stream(block, count int) []byte {
	source := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s%d", f.key, block)))
	random := make([]byte, 2*count)
	_, _ = source.Read(random) // never fails, by its documentation
	return random
}

// each calls put with every element's index in the block and quantile.
func (f *filler) each(random []byte, put func(i int, z float64)) {
	z := normalQuantiles()
	for i := range len(random) / 2 {
		put(i, z[binary.LittleEndian.Uint16(random[2*i:])])
	}
}

// widen writes again those elements of a block whose rows have a gain.
func (f *filler) widen(first, count int, random, out []byte) {
	t := f.tensor
	if len(t.Gains) == 0 {
		return
	}
	z := normalQuantiles()
	row := t.elements() / t.Shape[0]
	for r, gain := range t.Gains {
		for i := max(first, r*row); i < min(first+count, (r+1)*row); i++ {
			k := i - first
			v := t.Mean + t.Std*gain*z[binary.LittleEndian.Uint16(random[2*k:])]
			f.enc.put(out[k*f.enc.size:], v)
		}
	}
}
