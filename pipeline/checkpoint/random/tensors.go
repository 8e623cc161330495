package random

import (
	"fmt"
	"math"
)

// A tensorSpec describes one tensor of a checkpoint: its name in the file, its shape, and the distribution of its
// elements.
type tensorSpec struct {
	Name  string
	Shape []int
	Mean  float64
	Std   float64
	// Gains widens single rows (indices of the first dimension): their Std is multiplied.
	Gains map[int]float64
	// Values replaces the random numbers: the tensor is exactly this.
	Values []float64
}

// elements returns the number of elements.
func (t *tensorSpec) elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// A builder collects the tensors of a network under a common name prefix.
type builder struct {
	prefix  string
	tensors *[]tensorSpec
}

// in returns a builder whose names start with one more part: b.in("layers.%d", 3) adds "layers.3.".
func (b builder) in(format string, args ...any) builder {
	return builder{prefix: b.prefix + fmt.Sprintf(format, args...) + ".", tensors: b.tensors}
}

// add appends a tensor.
func (b builder) add(t tensorSpec) {
	t.Name = b.prefix + t.Name
	*b.tensors = append(*b.tensors, t)
}

// biasStd is the spread of every bias: enough to be noticed where a bias is forgotten, small beside the activations.
const biasStd = 0.1

// linear adds the weight [out, in] of a linear layer that multiplies the size of its input by gain, and its bias if
// it has one.
func (b builder) linear(name string, out, in int, gain float64, bias bool) {
	b.layer(name, []int{out, in}, in, gain, bias)
}

// conv adds the weight [out, in, kernel] of a one-dimensional convolution, and its bias if it has one.
func (b builder) conv(name string, out, in, kernel int, gain float64, bias bool) {
	b.layer(name, []int{out, in, kernel}, in*kernel, gain, bias)
}

// layer adds a weight whose outputs sum up fanIn inputs each, and the bias.
func (b builder) layer(name string, shape []int, fanIn int, gain float64, bias bool) {
	b.add(tensorSpec{Name: name + ".weight", Shape: shape, Std: gain / math.Sqrt(float64(fanIn))})
	if bias {
		b.add(tensorSpec{Name: name + ".bias", Shape: shape[:1], Std: biasStd})
	}
}

// norm adds a normalisation's weight, spread around one, and its bias if it has one.
func (b builder) norm(name string, size int, bias bool) {
	b.add(tensorSpec{Name: name + ".weight", Shape: []int{size}, Mean: 1, Std: 0.1})
	if bias {
		b.add(tensorSpec{Name: name + ".bias", Shape: []int{size}, Std: biasStd})
	}
}

// table adds an embedding table [rows, size].
func (b builder) table(name string, rows, size int, std float64) {
	b.add(tensorSpec{Name: name + ".weight", Shape: []int{rows, size}, Std: std})
}
