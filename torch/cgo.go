package torch

// #cgo CFLAGS: -std=c11 -I${SRCDIR}/../csrc
// #cgo LDFLAGS: -L${SRCDIR}/../build/lib -lomni
// #cgo LDFLAGS: -Wl,-rpath,$ORIGIN/../lib -Wl,-rpath,${SRCDIR}/../build/lib
// #include <omni.h>
// #include <stdlib.h>
import "C"

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"unsafe"
)

// The only file with C calls. Handles are wrapped in types whose methods check, convert and free; nothing above this
// file sees a pointer of C.

// check turns a status into an error and frees it. Every fallible C call goes through it.
func check(op string, status *C.omni_status) error {
	if status == nil {
		return nil
	}
	defer C.omni_status_free(status)
	var size C.size_t
	message := C.omni_status_message(status, &size)
	return &Error{Op: op, Code: Code(C.omni_status_code(status)), Message: string(bytesAt(message, size))}
}

// bytesAt views size bytes of C memory, which the caller must copy before it frees them.
func bytesAt[T any](data *T, size C.size_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(data)), int(size))
}

// text passes the bytes of s to a C function that copies them.
func text(s []byte) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.SliceData(s))), C.size_t(len(s))
}

// take copies a buffer and frees it.
func take(buffer *C.omni_buffer) []byte {
	defer C.omni_buffer_free(buffer)
	return bytes.Clone(bytesAt((*byte)(C.omni_buffer_data(buffer)), C.omni_buffer_size(buffer)))
}

// Init makes the calling OS thread the torch thread, to which the caller must have locked itself. threads is how many
// threads compute within an operation, 0 for libtorch's choice. Calling it again there changes the number. A build with
// the tag cuda opens CUDA as well; that there is none is no error.
func Init(threads int) error {
	fields := fmt.Appendf(nil, `{"threads":%d`, threads)
	if CUDABuild {
		fields = append(fields, `,"cuda":true`...)
	}
	config, size := text(append(fields, '}'))
	return check("init runtime", C.omni_runtime_init(config, size))
}

// RuntimeInfo returns the JSON object that omni_runtime_info describes: versions, threads, CPU and CUDA.
func RuntimeInfo() (json.RawMessage, error) {
	var out *C.omni_buffer
	if err := check("runtime info", C.omni_runtime_info(&out)); err != nil {
		return nil, err
	}
	return take(out), nil
}

// Models returns the names of the networks that [OpenEngine] knows.
func Models() ([]string, error) {
	var out *C.omni_buffer
	if err := check("list models", C.omni_engine_models(&out)); err != nil {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(take(out), &names); err != nil {
		return nil, &Error{Op: "list models", Code: Internal, Message: err.Error()}
	}
	return names, nil
}

// ABIVersion returns the version of the C interface of the library that was loaded.
func ABIVersion() int { return int(C.omni_abi_version()) }

// Live returns how many C handles of a class ("status", "buffer", "engine", "sequence", "step", "recorder") are alive,
// -1 for an unknown class. For tests that look for leaks.
func Live(class string) int64 {
	name := C.CString(class)
	defer C.free(unsafe.Pointer(name))
	return int64(C.omni_runtime_live(name))
}

// engineHandle owns a C engine until free.
type engineHandle struct {
	c *C.omni_engine // nil after free
}

func openEngine(config []byte) (*engineHandle, error) {
	data, size := text(config)
	h := &engineHandle{}
	if err := check("open engine", C.omni_engine_open(data, size, &h.c)); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *engineHandle) load() (done, total int64, err error) {
	if h.c == nil {
		return 0, 0, errClosed("load engine")
	}
	err = check("load engine", C.omni_engine_load(h.c, (*C.int64_t)(&done), (*C.int64_t)(&total)))
	return done, total, err
}

func (h *engineHandle) info() (json.RawMessage, error) {
	if h.c == nil {
		return nil, errClosed("engine info")
	}
	var out *C.omni_buffer
	if err := check("engine info", C.omni_engine_info(h.c, &out)); err != nil {
		return nil, err
	}
	return take(out), nil
}

func (h *engineHandle) admit(sequence uint64, params []byte) error {
	if h.c == nil {
		return errClosed("admit sequence")
	}
	data, size := text(params)
	return check("admit sequence", C.omni_engine_admit(h.c, C.uint64_t(sequence), data, size))
}

func (h *engineHandle) feed(sequence uint64, input Input) error {
	if h.c == nil {
		return errClosed("feed sequence")
	}
	var pinner runtime.Pinner // the structs below point into Go's memory, which C reads during the call only
	defer pinner.Unpin()
	tensors := make([]C.omni_tensor, len(input.Tensors))
	for i := range input.Tensors {
		tensors[i] = viewTensor(&pinner, &input.Tensors[i])
	}
	c := C.omni_input{
		struct_size:   C.sizeof_omni_input,
		tokens_count:  C.size_t(len(input.Tokens)),
		tensors_count: C.size_t(len(tensors)),
	}
	if input.Last {
		c.last = 1
	}
	if len(input.Tokens) > 0 {
		pinner.Pin(&input.Tokens[0])
		c.tokens = (*C.int64_t)(&input.Tokens[0])
	}
	if len(tensors) > 0 {
		pinner.Pin(&tensors[0])
		c.tensors = &tensors[0]
	}
	return check("feed sequence", C.omni_engine_feed(h.c, C.uint64_t(sequence), &c))
}

// viewTensor describes a tensor that Tensor.check has accepted, and pins its name and data.
func viewTensor(pinner *runtime.Pinner, t *Tensor) C.omni_tensor {
	number, _ := dtypeNumber(t.DType)
	c := C.omni_tensor{
		struct_size: C.sizeof_omni_tensor,
		dtype:       C.int32_t(number),
		name_size:   C.size_t(len(t.Name)),
		data_size:   C.size_t(len(t.Data)),
		ndim:        C.int32_t(len(t.Shape)),
	}
	if name := unsafe.StringData(t.Name); len(t.Name) > 0 {
		pinner.Pin(name)
		c.name = (*C.char)(unsafe.Pointer(name))
	}
	if len(t.Data) > 0 {
		pinner.Pin(&t.Data[0])
		c.data = unsafe.Pointer(&t.Data[0])
	}
	for i, dim := range t.Shape {
		c.dims[i] = C.int64_t(dim)
	}
	return c
}

func (h *engineHandle) step(sequences []uint64) ([]Result, error) {
	if h.c == nil {
		return nil, errClosed("step engine")
	}
	var step *C.omni_step
	numbers := (*C.uint64_t)(unsafe.SliceData(sequences))
	if err := check("step engine", C.omni_engine_step(h.c, numbers, C.size_t(len(sequences)), &step)); err != nil {
		return nil, err
	}
	defer C.omni_step_free(step)
	results := make([]Result, C.omni_step_count(step))
	for i := range results {
		if err := readResult(step, C.size_t(i), &results[i]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// readResult copies the result at index out of the step.
func readResult(step *C.omni_step, index C.size_t, result *Result) error {
	c := C.omni_result{struct_size: C.sizeof_omni_result}
	if err := check("read result", C.omni_step_result(step, index, &c)); err != nil {
		return err
	}
	result.Sequence = uint64(c.sequence)
	result.State = State(c.state)
	result.Finish = Finish(c.finish_reason)
	result.Wanted = int64(c.tokens_wanted)
	if result.State == Failed {
		message := string(bytesAt(c.message, c.message_size))
		result.Err = &Error{Op: "advance sequence", Code: Code(c.code), Message: message}
	}
	result.Tokens = slices.Clone(unsafe.Slice((*int64)(c.tokens), int(c.tokens_count)))
	for i := range c.tensors_count {
		t := C.omni_tensor{struct_size: C.sizeof_omni_tensor}
		if err := check("read result tensor", C.omni_step_tensor(step, index, i, &t)); err != nil {
			return err
		}
		result.Tensors = append(result.Tensors, copyTensor(&t))
	}
	return nil
}

func copyTensor(c *C.omni_tensor) Tensor {
	t := Tensor{
		Name:  string(bytesAt(c.name, c.name_size)),
		DType: dtypes[c.dtype].name,
		Shape: make([]int64, c.ndim),
		Data:  bytes.Clone(bytesAt((*byte)(c.data), c.data_size)),
	}
	for i := range t.Shape {
		t.Shape[i] = int64(c.dims[i])
	}
	return t
}

// copyForeign copies the at::Tensor that tensor points at.
func copyForeign(op string, tensor unsafe.Pointer) (Tensor, error) {
	c := C.omni_tensor{struct_size: C.sizeof_omni_tensor}
	var data *C.omni_buffer
	if err := check(op, C.omni_tensor_copy(tensor, &c, &data)); err != nil {
		return Tensor{}, err
	}
	defer C.omni_buffer_free(data)
	return copyTensor(&c), nil
}

func (h *engineHandle) release(sequence uint64) error {
	if h.c == nil {
		return errClosed("release sequence")
	}
	return check("release sequence", C.omni_engine_release(h.c, C.uint64_t(sequence)))
}

func (h *engineHandle) free() {
	C.omni_engine_free(h.c)
	h.c = nil
}

// recorderHandle owns a C recorder until free.
type recorderHandle struct {
	c *C.omni_recorder // nil after free
}

func startRecorder(config []byte) (*recorderHandle, error) {
	data, size := text(config)
	h := &recorderHandle{}
	if err := check("start recorder", C.omni_recorder_start(data, size, &h.c)); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *recorderHandle) stepBegin(number int64) error {
	if h.c == nil {
		return errClosed("begin recorder step")
	}
	return check("begin recorder step", C.omni_recorder_step_begin(h.c, C.int64_t(number)))
}

func (h *recorderHandle) stepEnd() error {
	if h.c == nil {
		return errClosed("end recorder step")
	}
	return check("end recorder step", C.omni_recorder_step_end(h.c))
}

func (h *recorderHandle) scopeBegin(name string) error {
	if h.c == nil {
		return errClosed("begin recorder scope")
	}
	// Terminated, because an empty slice has no pointer and the C function wants one.
	data, size := text(append([]byte(name), 0))
	return check("begin recorder scope", C.omni_recorder_scope_begin(h.c, data, size-1))
}

func (h *recorderHandle) scopeEnd() error {
	if h.c == nil {
		return errClosed("end recorder scope")
	}
	return check("end recorder scope", C.omni_recorder_scope_end(h.c))
}

func (h *recorderHandle) callSite(name, site string) error {
	if h.c == nil {
		return errClosed("note recorder call site")
	}
	// Terminated, as in scopeBegin.
	nameData, nameSize := text(append([]byte(name), 0))
	siteData, siteSize := text(append([]byte(site), 0))
	return check("note recorder call site", C.omni_recorder_call_site(h.c, nameData, nameSize-1, siteData, siteSize-1))
}

func (h *recorderHandle) cut() error {
	if h.c == nil {
		return errClosed("cut recorder")
	}
	return check("cut recorder", C.omni_recorder_cut(h.c))
}

func (h *recorderHandle) stop() error {
	if h.c == nil {
		return errClosed("stop recorder")
	}
	return check("stop recorder", C.omni_recorder_stop(h.c))
}

func (h *recorderHandle) finish() (json.RawMessage, error) {
	if h.c == nil {
		return nil, errClosed("finish recorder")
	}
	var out *C.omni_buffer
	if err := check("finish recorder", C.omni_recorder_finish(h.c, &out)); err != nil {
		return nil, err
	}
	return take(out), nil
}

func (h *recorderHandle) status() (json.RawMessage, error) {
	if h.c == nil {
		return nil, errClosed("ask recorder for its status")
	}
	var out *C.omni_buffer
	if err := check("ask recorder for its status", C.omni_recorder_status(h.c, &out)); err != nil {
		return nil, err
	}
	return take(out), nil
}

func (h *recorderHandle) dump(config []byte) (*recorderHandle, error) {
	if h.c == nil {
		return nil, errClosed("dump recorder")
	}
	data, size := text(config)
	dump := &recorderHandle{}
	if err := check("dump recorder", C.omni_recorder_dump(h.c, data, size, &dump.c)); err != nil {
		return nil, err
	}
	return dump, nil
}

func (h *recorderHandle) free() {
	C.omni_recorder_free(h.c)
	h.c = nil
}
