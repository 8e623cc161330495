package torch

import (
	"fmt"
	"math"
)

// Tensor is a dense, row-major tensor in Go's memory.
type Tensor struct {
	Name  string
	DType string // float32, float16, bfloat16, int64, int32 or uint8
	Shape []int64
	Data  []byte // the elements, little endian
}

// maxDims is OMNI_MAX_DIMS.
const maxDims = 8

// dtypes holds the names and sizes of element types; the index is the number of the type in csrc/omni.h.
var dtypes = [...]struct {
	name string
	size int64
}{
	{"float32", 4},
	{"float16", 2},
	{"bfloat16", 2},
	{"int64", 8},
	{"int32", 4},
	{"uint8", 1},
}

func dtypeNumber(name string) (int, error) {
	for number, dtype := range dtypes {
		if dtype.name == name {
			return number, nil
		}
	}
	return 0, fmt.Errorf("unknown dtype %q", name)
}

// check reports whether the fields agree with each other.
func (t *Tensor) check() error {
	number, err := dtypeNumber(t.DType)
	if err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	if len(t.Shape) > maxDims {
		return fmt.Errorf("tensor %q: %d dimensions, at most %d are possible", t.Name, len(t.Shape), maxDims)
	}
	bytes := dtypes[number].size
	for _, dim := range t.Shape {
		if dim < 0 || (dim > 0 && bytes > math.MaxInt64/dim) {
			return fmt.Errorf("tensor %q: bad shape %v", t.Name, t.Shape)
		}
		bytes *= dim
	}
	if bytes != int64(len(t.Data)) {
		return fmt.Errorf("tensor %q: %s %v takes %d bytes, found %d", t.Name, t.DType, t.Shape, bytes, len(t.Data))
	}
	return nil
}
