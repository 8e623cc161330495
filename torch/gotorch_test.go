package torch

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/wangkuiyi/gotorch"
	"golang.org/x/sys/unix"
)

func floats(values ...float32) []byte {
	var data []byte
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

func TestPicklesRoundTrip(t *testing.T) {
	checkNoLeaks(t)
	tensors := []Tensor{
		{DType: "float32", Shape: []int64{2, 3}, Data: floats(1, -2, 3.5, 0, 1e-30, 7)},
		{DType: "bfloat16", Shape: []int64{3}, Data: []byte{1, 2, 3, 4, 5, 6}},
		{DType: "float16", Shape: []int64{1, 1}, Data: []byte{0, 60}},
		{DType: "int64", Shape: []int64{1}, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{DType: "int32", Shape: []int64{1}, Data: []byte{255, 255, 255, 127}},
		{DType: "uint8", Shape: []int64{5}, Data: []byte("hello")},
		{DType: "float32", Shape: []int64{}, Data: floats(42)},
		{DType: "float32", Shape: []int64{0, 4}, Data: []byte{}},
	}
	for _, want := range tensors {
		data, err := EncodePickle(want)
		if err != nil {
			t.Errorf("%s %v: %v", want.DType, want.Shape, err)
			continue
		}
		got, err := DecodePickle(data)
		if got.Data == nil {
			got.Data = []byte{}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// testdata/tensor.pt: torch.save(torch.arange(6.0).view(2, 3).t(), "tensor.pt") by Python's torch 2.15.0.
func TestDecodePickleReadsWhatPythonSaved(t *testing.T) {
	checkNoLeaks(t)
	data, err := os.ReadFile("testdata/tensor.pt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodePickle(data)
	want := Tensor{DType: "float32", Shape: []int64{3, 2}, Data: floats(0, 3, 1, 4, 2, 5)}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestPicklesRefuseBadInput(t *testing.T) {
	checkNoLeaks(t)
	_, err := DecodePickle(nil)
	wantCode(t, err, InvalidArgument, "decode pickle", "0 bytes")
	_, err = DecodePickle([]byte("not a pickle"))
	wantCode(t, err, InvalidArgument, "decode pickle")
	speakers, err := os.ReadFile("../csrc/tests/testdata/two_speakers.pt")
	if err != nil {
		t.Fatal(err)
	}
	_, err = DecodePickle(speakers) // a dict
	wantCode(t, err, InvalidArgument, "decode pickle")
	_, err = EncodePickle(Tensor{DType: "float32", Shape: []int64{2}, Data: floats(1)})
	wantCode(t, err, InvalidArgument, "takes 8 bytes, found 4")
	_, err = EncodePickle(Tensor{DType: "quaternion"})
	wantCode(t, err, InvalidArgument, `"quaternion"`)
}

// What gotorch computes arrives in our tensors, and what goes through an engine arrives in gotorch: two libraries over
// one libtorch, which know nothing of each other, agree about every byte.
func TestGotorchAgreesAboutTensors(t *testing.T) {
	checkNoLeaks(t)
	a := gotorch.Arange(1, 7, 1, false).View(2, 3)
	b := gotorch.Linspace(-1, 1, 6, false).View(3, 2)
	product, err := fromGotorch("test", gotorch.MM(a, b))
	if err != nil {
		t.Fatal(err)
	}
	var want [4]float32
	for i := range 2 {
		for j := range 2 {
			for k := range 3 {
				want[2*i+j] += float32(1+3*i+k) * (-1 + 0.4*float32(2*k+j))
			}
		}
	}
	got := toFloats(product.Data)
	for i := range want {
		if math.Abs(float64(got[i]-want[i])) > 1e-5 {
			t.Errorf("product: got %v, want %v", got, want)
		}
	}

	for dtype, number := range gotorchDTypes {
		original := gotorch.MM(a, b).CastTo(number)
		ours, err := fromGotorch("test", original)
		if err != nil || ours.DType != dtype {
			t.Errorf("got dtype %s, %v, want %s", ours.DType, err, dtype)
			continue
		}
		ours.Name = "x"
		echoed := echo(t, ours)
		if back := toGotorch(echoed); !gotorch.Equal(original, back) {
			t.Errorf("%s: sent %v, got back %v", dtype, original, back)
		}
	}
	strided, err := fromGotorch("test", gotorch.Transpose(a, 0, 1))
	if want := floats(1, 4, 2, 5, 3, 6); err != nil || string(strided.Data) != string(want) {
		t.Errorf("a transposed tensor: got %v, %v", toFloats(strided.Data), err)
	}
}

func toFloats(data []byte) []float32 {
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values
}

// echo sends a tensor through an engine and back.
func echo(t *testing.T, tensor Tensor) Tensor {
	t.Helper()
	var out Tensor
	withEngine(t, func(e *Engine) {
		if err := e.Admit(1, json.RawMessage(`{}`)); err != nil {
			t.Error(err)
		}
		if err := e.Feed(1, Input{Tensors: []Tensor{tensor}}); err != nil {
			t.Error(err)
		}
		results, err := e.Step([]uint64{1})
		if err != nil || len(results[0].Tensors) != 1 {
			t.Errorf("got %+v, %v, want one tensor", results, err)
			return
		}
		out = results[0].Tensors[0]
	})
	return out
}

// The test binary itself must start where there is one CPU, and gotorch must not have set the number of threads.
func TestProgramStartsOnOneCPU(t *testing.T) {
	checkNoLeaks(t)
	runtime.LockOSThread() // and never unlocked: the thread with the changed affinity ends with this goroutine
	var one unix.CPUSet
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("/proc/self/exe", "-test.run=^TestLiveKnowsItsClasses$")
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); name != "OMP_NUM_THREADS" && name != "MKL_NUM_THREADS" {
			command.Env = append(command.Env, variable)
		}
	}
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
