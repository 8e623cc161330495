package message

import (
	"fmt"
	"math"
	"slices"
)

// Limits of what one message may carry.
const (
	MaxDims    = 8    // dimensions of a tensor, as in omni.h
	MaxTensors = 1024 // tensors of a message
	MaxName    = 256  // bytes of a tensor's name
)

// Tensor is a dense, row-major array on the host. Data is shared, never copied, by the functions of this package; who
// received a message owns its tensors.
type Tensor struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
	Data  []byte  `json:"-"`
}

// dtypes lists the element types and their size in bytes.
var dtypes = []struct {
	name string
	size int64
}{{"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"int64", 8}, {"int32", 4}, {"uint8", 1}}

// Size returns the number of bytes that the tensor's type and shape call for.
func (t *Tensor) Size() (int64, error) {
	if t.Name == "" || len(t.Name) > MaxName {
		return 0, fmt.Errorf("tensor name %.40q has %d bytes, expected 1..%d", t.Name, len(t.Name), MaxName)
	}
	size := int64(0)
	for _, d := range dtypes {
		if d.name == t.DType {
			size = d.size
		}
	}
	if size == 0 {
		return 0, fmt.Errorf("tensor %q has unknown dtype %q", t.Name, t.DType)
	}
	if len(t.Shape) > MaxDims {
		return 0, fmt.Errorf("tensor %q has %d dimensions, at most %d are possible", t.Name, len(t.Shape), MaxDims)
	}
	empty := slices.Contains(t.Shape, 0)
	for _, dim := range t.Shape {
		if dim < 0 {
			return 0, fmt.Errorf("tensor %q has shape %v with a negative dimension", t.Name, t.Shape)
		}
		if !empty && size > math.MaxInt64/dim {
			return 0, fmt.Errorf("tensor %q has shape %v, which is too large", t.Name, t.Shape)
		}
		size *= dim
	}
	return size, nil
}

// check reports whether Data fits type and shape.
func (t *Tensor) check() error {
	size, err := t.Size()
	if err != nil {
		return err
	}
	if size != int64(len(t.Data)) {
		return fmt.Errorf("tensor %q of %s%v needs %d bytes, found %d", t.Name, t.DType, t.Shape, size, len(t.Data))
	}
	return nil
}

// Bytes returns the total size of the tensors' data.
func Bytes(tensors []Tensor) int64 {
	n := int64(0)
	for i := range tensors {
		n += int64(len(tensors[i].Data))
	}
	return n
}
