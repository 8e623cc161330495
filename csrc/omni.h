/* omni.h: the only header that Go sees. Plain C11.
 *
 * What it is for: a worker process runs one stage of a pipeline. It opens an engine (one network and its
 * weights), holds many sequences in it, and advances a chosen batch of them by one step per call. A recorder
 * profiles what the engine does. Tensor arithmetic, weights and caches stay behind these handles.
 *
 * Rules
 *   - Every call that can fail returns omni_status*; NULL is success. The caller frees a status with
 *     omni_status_free. There is no last-error state of any kind.
 *   - Out-parameters come last and are untouched when a call fails; nothing is to be cleaned up after an error.
 *   - A handle has one owner, the caller, who frees it with the function named beside its type. Passing NULL to
 *     a free function does nothing.
 *   - Bytes that go in are copied before the call returns, unless the parameter's name ends in _borrow.
 *   - Strings are UTF-8 with an explicit length and need no terminator. Cold structures are JSON, hot ones POD
 *     that begins with struct_size, set by the caller to sizeof the struct that it was compiled with.
 *   - Threads: every function marked [torch thread] must be called on the one thread that called
 *     omni_runtime_init; elsewhere it fails with OMNI_WRONG_THREAD. All others may be called on any thread.
 *   - Functions and fields are only appended. A change that breaks callers raises OMNI_ABI_VERSION.
 */
#ifndef OMNI_H_
#define OMNI_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define OMNI_API __attribute__((visibility("default")))
#else
#define OMNI_API
#endif

#define OMNI_ABI_VERSION 1u

/* ---- status ---------------------------------------------------------------------------------------------- */

typedef enum omni_code {
  OMNI_OK = 0,
  OMNI_INVALID_ARGUMENT = 1,
  OMNI_NOT_FOUND = 2,
  OMNI_FAILED_PRECONDITION = 3,
  OMNI_UNIMPLEMENTED = 4,
  OMNI_RESOURCE_EXHAUSTED = 5,
  OMNI_CANCELLED = 6,
  OMNI_DEVICE_LOST = 7,
  OMNI_WRONG_THREAD = 8,
  OMNI_INTERNAL = 9
} omni_code;

typedef struct omni_status omni_status; /* owner: caller; omni_status_free */

OMNI_API int32_t omni_status_code(const omni_status* status); /* OMNI_OK for NULL */
/* The message, owned by the status; empty for NULL. size receives its length in bytes and may be NULL. */
OMNI_API const char* omni_status_message(const omni_status* status, size_t* size);
OMNI_API void omni_status_free(omni_status* status);

/* ---- buffers: bytes or JSON text that the library hands out ------------------------------------------------ */

typedef struct omni_buffer omni_buffer; /* owner: caller; omni_buffer_free */

OMNI_API const void* omni_buffer_data(const omni_buffer* buffer); /* owned by the buffer */
OMNI_API size_t omni_buffer_size(const omni_buffer* buffer);
OMNI_API void omni_buffer_free(omni_buffer* buffer);

/* ---- runtime ------------------------------------------------------------------------------------------------ */

OMNI_API uint32_t omni_abi_version(void);

/* Makes the calling thread the torch thread of this process and sets the number of intra-op threads.
 * config: {"threads": N (0 = torch's default), "cuda": bool (open CUDA now, so that omni_runtime_info can say what
 * there is; what is missing is no error)}. A second call from the same thread changes the thread count. */
OMNI_API omni_status* omni_runtime_init(const char* config, size_t config_size);

/* JSON about the library and machine: {"torch","abi","compiler","cpu_capability","threads","cuda":{"opened":bool,
 * "driver":bool,"driver_version":N,"library":path,"devices":N,"plugin":bool,"reason","plugin_reason"}}. */
OMNI_API omni_status* omni_runtime_info(omni_buffer** out);

/* Live handles of a class ("status", "buffer", "engine", "sequence", "step", "recorder"), -1 if unknown.
 * For leak tests. */
OMNI_API int64_t omni_runtime_live(const char* handle_class);

/* ---- tensors ------------------------------------------------------------------------------------------------ */

typedef enum omni_dtype {
  OMNI_FLOAT32 = 0,
  OMNI_FLOAT16 = 1,
  OMNI_BFLOAT16 = 2,
  OMNI_INT64 = 3,
  OMNI_INT32 = 4,
  OMNI_UINT8 = 5
} omni_dtype;

#define OMNI_MAX_DIMS 8

/* A dense, row-major tensor on the host. As an input the bytes are copied. As an output name and data are owned
 * by the object it was read from. */
typedef struct omni_tensor {
  uint32_t struct_size;
  int32_t dtype; /* omni_dtype */
  const char* name;
  size_t name_size;
  const void* data;
  size_t data_size; /* bytes */
  int32_t ndim;
  int64_t dims[OMNI_MAX_DIMS];
} omni_tensor;

/* Describes and copies a tensor that another library of this process made over the same libtorch. at_tensor_borrow is
 * its C++ at::Tensor*, which only this call reads; it may be on any device and of any layout. The bytes belong to
 * *bytes, out->data points at them, and the name is empty. */
OMNI_API omni_status* omni_tensor_copy(const void* at_tensor_borrow, omni_tensor* out, omni_buffer** bytes);

/* ---- engines ------------------------------------------------------------------------------------------------ */

typedef struct omni_engine omni_engine; /* owner: caller; omni_engine_free */

/* Names of all registered models as a JSON list, for error texts and --help. */
OMNI_API omni_status* omni_engine_models(omni_buffer** out);

/* [torch thread] Reads the checkpoint's configuration and tensor headers and checks names and shapes; loads
 * nothing yet. config: {"model":"qwen2_5_omni.thinker","checkpoint":"/dir","dtype":"auto|float32|bfloat16|float16",
 * "device":"cpu|cuda:N","max_batch":N, ...}. Unknown keys are an error. */
OMNI_API omni_status* omni_engine_open(const char* config, size_t config_size, omni_engine** out);

/* [torch thread] Loads the next part of the weights, so that the caller can report progress or give up between
 * parts. Sets done and total in bytes of tensor data; loading has ended when they are equal. */
OMNI_API omni_status* omni_engine_load(omni_engine* engine, int64_t* done, int64_t* total);

/* JSON: {"model","dtype","device","parameters","weight_bytes","unused_tensors","sample_rate"?, "limits":{...},...}. */
OMNI_API omni_status* omni_engine_info(const omni_engine* engine, omni_buffer** out);

/* [torch thread] Creates a sequence under a number that the caller chose and that is not in use. params is JSON,
 * its keys are defined by the model; unknown keys are an error. */
OMNI_API omni_status* omni_engine_admit(omni_engine* engine, uint64_t sequence, const char* params,
                                        size_t params_size);

/* Input that arrives while a sequence runs. */
typedef struct omni_input {
  uint32_t struct_size;
  int32_t last; /* nonzero: nothing follows */
  const int64_t* tokens;
  size_t tokens_count;
  const omni_tensor* tensors;
  size_t tensors_count;
} omni_input;

/* [torch thread] Appends input to a sequence. */
OMNI_API omni_status* omni_engine_feed(omni_engine* engine, uint64_t sequence, const omni_input* input);

typedef struct omni_step omni_step; /* owner: caller; omni_step_free */

/* [torch thread] Advances the given sequences by one step each: a prefill or one token of an autoregressive
 * engine, one denoise step or one vocoder chunk of a generation engine. A sequence that lacks input does nothing
 * and reports OMNI_SEQUENCE_WAITING. An error of one sequence is in its result; the call itself fails only if
 * no sequence could be advanced for a reason that concerns all. */
OMNI_API omni_status* omni_engine_step(omni_engine* engine, const uint64_t* sequences, size_t count,
                                       omni_step** out);

/* [torch thread] Drops a sequence and all that it holds, in whatever state it is. NOT_FOUND if there is none. */
OMNI_API omni_status* omni_engine_release(omni_engine* engine, uint64_t sequence);

/* Frees the engine and all its sequences. Any thread, when no other call uses the engine. */
OMNI_API void omni_engine_free(omni_engine* engine);

typedef enum omni_sequence_state {
  OMNI_SEQUENCE_READY = 0,   /* can be stepped again */
  OMNI_SEQUENCE_WAITING = 1, /* needs input before the next step */
  OMNI_SEQUENCE_DONE = 2,    /* finished; release it */
  OMNI_SEQUENCE_FAILED = 3   /* failed; code and message say why; release it */
} omni_sequence_state;

typedef enum omni_finish_reason {
  OMNI_FINISH_NONE = 0,
  OMNI_FINISH_STOP = 1,  /* a stop token */
  OMNI_FINISH_LENGTH = 2 /* max_tokens */
} omni_finish_reason;

/* What one step did for one sequence. Pointers are owned by the omni_step. */
typedef struct omni_result {
  uint32_t struct_size;
  int32_t state; /* omni_sequence_state */
  uint64_t sequence;
  int32_t finish_reason; /* omni_finish_reason, set when DONE */
  int32_t code;          /* omni_code, set when FAILED */
  const char* message;
  size_t message_size;
  const int64_t* tokens; /* tokens or codes produced by this step */
  size_t tokens_count;
  size_t tensors_count; /* read them with omni_step_tensor */
  /* When WAITING: a step can do nothing before so many tokens more, or the last input, have been fed. 0: unknown, any
   * input may do. */
  int64_t tokens_wanted;
} omni_result;

OMNI_API size_t omni_step_count(const omni_step* step);
/* FAILS with INVALID_ARGUMENT if index is out of range. */
OMNI_API omni_status* omni_step_result(const omni_step* step, size_t index, omni_result* out);
OMNI_API omni_status* omni_step_tensor(const omni_step* step, size_t index, size_t tensor, omni_tensor* out);
OMNI_API void omni_step_free(omni_step* step);

/* ---- profiling ---------------------------------------------------------------------------------------------- */

typedef struct omni_recorder omni_recorder; /* owner: caller; omni_recorder_free */

/* [torch thread] Begins to record. At most one recorder of a process records at a time (FAILED_PRECONDITION).
 * config: {"recorder":"stream|kineto|cuda","session":"s1","worker":"stage-0","stage":0,"rank":0,"world_size":3,
 * "trace_path":"....pt.trace.json.gz","table_path":"....txt","base_time_ns":N,"detail":"ops|modules",
 * "record_shapes":bool,"with_stack":bool,"with_flops":bool,"with_memory":bool,"use_gzip":bool,
 * "activities":["CPU"],"metadata":{...},"max_events":N,"max_trace_bytes":N,"ring_seconds":X}. Unknown keys are an
 * error; an empty path means no such file; 0 means no such limit. Files must not exist, but table_path + ".tmp" may, as
 * an empty file that keeps the name from others.
 * The trace file appears at once as trace_path.tmp, with its header in it; "stream" brings to it about every second what
 * has ended by then, "kineto" writes when it is finished.
 * When as many events as max_events are recorded, or the trace file has grown to max_trace_bytes, everything that
 * begins later counts as dropped, and omni_recorder_status says so; the caller stops the recorder when it likes.
 * ring_seconds ("stream" only) keeps so much of the past in memory, or less if it does not fit into the recorder's pool,
 * and writes nothing but what omni_recorder_dump asks for: paths must be empty, and the limits do not apply. */
OMNI_API omni_status* omni_recorder_start(const char* config, size_t config_size, omni_recorder** out);

/* [torch thread] Opens the annotation ProfilerStep#number; omni_recorder_step_end closes it. Steps do not nest. */
OMNI_API omni_status* omni_recorder_step_begin(omni_recorder* recorder, int64_t number);
OMNI_API omni_status* omni_recorder_step_end(omni_recorder* recorder);

/* [torch thread] Opens a user annotation of any name and closes it: stage.wait, say, for the time in which there is
 * nothing to do. Between steps, one at a time; the end of the recording closes an open one. */
OMNI_API omni_status* omni_recorder_scope_begin(omni_recorder* recorder, const char* name, size_t name_size);
OMNI_API omni_status* omni_recorder_scope_end(omni_recorder* recorder);

/* [torch thread] Ends collection, unless omni_recorder_cut has, and takes away what recorded on this thread; an open
 * step or annotation is closed. The recorder then holds what it has seen; nothing of it is on disk for sure. */
OMNI_API omni_status* omni_recorder_stop(omni_recorder* recorder);

/* Any thread, after stop or cut, and once: writes and closes the files (a .tmp, then renamed), frees the events and
 * returns {"files":[{"path","kind":"trace|table","bytes"}],"events":N,"steps":N,"dropped":{reason:N},"write_ms":X,
 * "wall_ns":N,"overhead_ns":N}: how long was recorded, and how much longer the recorded ops took for it. If the disk is
 * full, the trace's .tmp stays: it is half a trace. A table that could not be written is no failure if the trace is
 * complete: "table_error" says why. */
OMNI_API omni_status* omni_recorder_finish(omni_recorder* recorder, omni_buffer** out);

/* Any thread, at any time from start to free: {"events":N,"dropped":{reason:N},"trace_bytes":N,"overhead_ns":N,
 * "full":""}. full says why no more events are taken: "max_events", "max_trace_mb", or "error" if writing has failed,
 * which omni_recorder_finish describes. */
OMNI_API omni_status* omni_recorder_status(const omni_recorder* recorder, omni_buffer** out);

/* Any thread, also while a step runs, of a recorder with ring_seconds: what it holds now becomes a second recorder,
 * which has been stopped already and is finished and freed like any other; the ring goes on and keeps what it holds. What
 * is open ends now in the dump, as after omni_recorder_cut. No other call but omni_recorder_status at the same time.
 * config: {"session","trace_path","table_path","base_time_ns","metadata"}, as in omni_recorder_start; the rest is the
 * ring's. */
OMNI_API omni_status* omni_recorder_dump(omni_recorder* recorder, const char* config, size_t config_size,
                                         omni_recorder** out);

/* Any thread, after stop: stops nothing, drops what is held, removes unfinished files. */
OMNI_API void omni_recorder_free(omni_recorder* recorder);

/* Any thread, also while a step runs: ends collection at once. Nothing that begins later is recorded, and what is open
 * ends now in the files; a step that is open does not count and is called "cut ProfilerStep#N" there. After it
 * omni_recorder_finish may be called at once; omni_recorder_stop must still be called, before or after or during that,
 * before the next start and before omni_recorder_free. No other call but omni_recorder_status at the same time.
 * FAILS with UNIMPLEMENTED, and records on, if the recorder ends on the torch thread alone: "kineto", "cuda", and
 * "stream" where it collects what GPUs do. */
OMNI_API omni_status* omni_recorder_cut(omni_recorder* recorder);

/* [torch thread] Says where in the caller's program the annotations of that name stand that are opened from now on:
 * "pipeline/worker/steps.go(133): step". "ProfilerStep" stands for all steps. It is in the "Call stack" of a trace
 * with_stack, behind the places in this library; without with_stack it is forgotten. */
OMNI_API omni_status* omni_recorder_call_site(omni_recorder* recorder, const char* name, size_t name_size,
                                              const char* site, size_t site_size);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* OMNI_H_ */
