/* A plain C11 program over omni.h and the library of weightless engines: the header is C, every function reports bad
 * arguments instead of crashing, out-parameters stay as they were on errors, and no handle is left at the end.
 * Usage: c_test FOLDER, an existing folder for a checkpoint. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgotorch/tensor.h"
#include "cgotorch/torch.h"
#include "omni.h"

static int failures = 0;

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                                   \
    }                                                                               \
  } while (0)

/* Checks code and text of a status and frees it. */
static void expect_at(int line, omni_status* status, omni_code code, const char* part) {
  size_t size = 0;
  const char* message = omni_status_message(status, &size);
  if (omni_status_code(status) != (int32_t)code || strstr(message, part) == NULL || strlen(message) != size) {
    fprintf(stderr, "%s:%d: got code %d \"%s\", want %d \"%s\"\n", __FILE__, line, omni_status_code(status),
            message, (int)code, part);
    ++failures;
  }
  omni_status_free(status);
}
#define EXPECT(status, code, part) expect_at(__LINE__, status, code, part)
#define EXPECT_OK(status) expect_at(__LINE__, status, OMNI_OK, "")

static const char kEmpty[] = "{}";

/* Checks that JSON holds a part, and frees it. */
static void expect_json_at(int line, omni_buffer* json, const char* part) {
  const char* text = (const char*)omni_buffer_data(json); /* ends with a zero that its size does not count */
  if (strlen(text) != omni_buffer_size(json) || strstr(text, part) == NULL) {
    fprintf(stderr, "%s:%d: got %s, want a text with %s\n", __FILE__, line, text, part);
    ++failures;
  }
  omni_buffer_free(json);
}
#define EXPECT_JSON(json, part) expect_json_at(__LINE__, json, part)

static void write_file(const char* folder, const char* name, const char* bytes, size_t size) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE* file = fopen(path, "wb");
  CHECK(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static omni_engine* open_fake(const char* folder) {
  char config[5000];
  const int size = snprintf(config, sizeof config, "{\"model\":\"fake\",\"checkpoint\":\"%s\"}", folder);
  omni_engine* engine = NULL;
  EXPECT_OK(omni_engine_open(config, (size_t)size, &engine));
  CHECK(engine != NULL);
  return engine;
}

static void test_null_arguments(void) {
  omni_buffer* buffer = NULL;
  omni_engine* engine = NULL;
  omni_step* step = NULL;
  omni_recorder* recorder = NULL;
  EXPECT(omni_runtime_init(NULL, 0), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_runtime_info(NULL), OMNI_INVALID_ARGUMENT, "out is NULL");
  EXPECT(omni_engine_models(NULL), OMNI_INVALID_ARGUMENT, "out is NULL");
  EXPECT(omni_engine_open(NULL, 0, &engine), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_engine_open(kEmpty, 2, NULL), OMNI_INVALID_ARGUMENT, "out is NULL");
  EXPECT(omni_engine_load(NULL, NULL, NULL), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_engine_info(NULL, &buffer), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_engine_admit(NULL, 1, kEmpty, 2), OMNI_INVALID_ARGUMENT, "engine is NULL");
  EXPECT(omni_engine_feed(NULL, 1, NULL), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_engine_step(NULL, NULL, 0, &step), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_engine_release(NULL, 1), OMNI_INVALID_ARGUMENT, "engine is NULL");
  EXPECT(omni_tensor_copy(NULL, NULL, &buffer), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_step_result(NULL, 0, NULL), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_step_tensor(NULL, 0, 0, NULL), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_recorder_start(NULL, 0, &recorder), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_recorder_start(kEmpty, 2, NULL), OMNI_INVALID_ARGUMENT, "out is NULL");
  EXPECT(omni_recorder_step_begin(NULL, 0), OMNI_INVALID_ARGUMENT, "recorder is NULL");
  EXPECT(omni_recorder_step_end(NULL), OMNI_INVALID_ARGUMENT, "recorder is NULL");
  EXPECT(omni_recorder_scope_begin(NULL, kEmpty, 2), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_recorder_scope_end(NULL), OMNI_INVALID_ARGUMENT, "recorder is NULL");
  EXPECT(omni_recorder_stop(NULL), OMNI_INVALID_ARGUMENT, "recorder is NULL");
  EXPECT(omni_recorder_status(NULL, &buffer), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_recorder_dump(NULL, kEmpty, 2, &recorder), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT(omni_recorder_finish(NULL, &buffer), OMNI_INVALID_ARGUMENT, "NULL");
  CHECK(buffer == NULL && engine == NULL && step == NULL && recorder == NULL);

  CHECK(omni_status_code(NULL) == OMNI_OK);
  CHECK(strcmp(omni_status_message(NULL, NULL), "") == 0);
  CHECK(omni_buffer_size(NULL) == 0 && omni_buffer_data(NULL) != NULL);
  CHECK(omni_step_count(NULL) == 0);
  CHECK(omni_runtime_live(NULL) == -1 && omni_runtime_live("socket") == -1);
  omni_status_free(NULL);
  omni_buffer_free(NULL);
  omni_engine_free(NULL);
  omni_step_free(NULL);
  omni_recorder_free(NULL);
}

static void test_runtime(void) {
  char abi[32];
  snprintf(abi, sizeof abi, "\"abi\":%d", OMNI_ABI_VERSION);
  omni_buffer* buffer = NULL;
  EXPECT_OK(omni_runtime_info(&buffer));
  EXPECT_JSON(buffer, abi);
  buffer = NULL;
  EXPECT_OK(omni_engine_models(&buffer));
  EXPECT_JSON(buffer, "[\"fake\"]");
}

static void test_bad_configs(void) {
  static const struct {
    const char* config;
    omni_code code;
    const char* part;
  } cases[] = {
      {"", OMNI_INVALID_ARGUMENT, "not JSON"},
      {"[1]", OMNI_INVALID_ARGUMENT, "expected a JSON object"},
      {"{\"model\":3}", OMNI_INVALID_ARGUMENT, "\"model\": expected a string, found 3"},
      {"{\"model\":\"fake\",\"checkpoint\":\"/nowhere\"}", OMNI_NOT_FOUND, "/nowhere"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    omni_engine* engine = NULL;
    EXPECT(omni_engine_open(cases[i].config, strlen(cases[i].config), &engine), cases[i].code, cases[i].part);
    CHECK(engine == NULL);
  }
  static const char threads[] = "{\"threads\":-2}";
  EXPECT(omni_runtime_init(threads, strlen(threads)), OMNI_INVALID_ARGUMENT, "found -2");
}

/* A caller that knows only the first fields of a struct, and one that did not set struct_size. */
static void test_struct_sizes(omni_engine* engine) {
  EXPECT_OK(omni_engine_admit(engine, 5, kEmpty, 2));
  omni_input input;
  memset(&input, 0xff, sizeof input);
  input.struct_size = (uint32_t)offsetof(omni_input, tokens);
  input.last = 1;
  EXPECT_OK(omni_engine_feed(engine, 5, &input));
  input.struct_size = 0;
  EXPECT(omni_engine_feed(engine, 5, &input), OMNI_INVALID_ARGUMENT, "struct_size is not set");

  const uint64_t sequence = 5;
  omni_step* step = NULL;
  EXPECT_OK(omni_engine_step(engine, &sequence, 1, &step));
  omni_result result;
  memset(&result, 0x55, sizeof result);
  result.struct_size = (uint32_t)offsetof(omni_result, finish_reason);
  EXPECT_OK(omni_step_result(step, 0, &result));
  CHECK(result.struct_size == offsetof(omni_result, finish_reason));
  CHECK(result.state == OMNI_SEQUENCE_DONE && result.sequence == 5);
  CHECK(result.finish_reason == 0x55555555);
  result.struct_size = 0;
  EXPECT(omni_step_result(step, 0, &result), OMNI_INVALID_ARGUMENT, "struct_size is not set");
  omni_step_free(step);
  EXPECT_OK(omni_engine_release(engine, 5));
}

static omni_tensor make_tensor(const char* name, const float* data, int64_t rows, int64_t columns) {
  omni_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.struct_size = sizeof tensor;
  tensor.dtype = OMNI_FLOAT32;
  tensor.name = name;
  tensor.name_size = strlen(name);
  tensor.data = data;
  tensor.data_size = (size_t)(rows * columns) * sizeof *data;
  tensor.ndim = 2;
  tensor.dims[0] = rows;
  tensor.dims[1] = columns;
  return tensor;
}

static void test_bad_tensors(omni_engine* engine) {
  static const float data[4] = {1, 2, 3, 4};
  const omni_tensor good = make_tensor("rows", data, 2, 2);
  omni_tensor bad[7];
  const char* parts[7] = {"has no name",      "unknown omni_dtype 17",           "9 dimensions",
                          "bad dimension -1", "takes 16 bytes, data_size is 15", "data is NULL",
                          "bad dimension"};
  for (size_t i = 0; i < 7; ++i) bad[i] = good;
  bad[0].name = NULL;
  bad[1].dtype = 17;
  bad[2].ndim = 9;
  bad[3].dims[1] = -1;
  bad[4].data_size = 15;
  bad[5].data = NULL;
  bad[6].dims[0] = INT64_MAX;
  EXPECT_OK(omni_engine_admit(engine, 6, kEmpty, 2));
  for (size_t i = 0; i < 7; ++i) {
    const omni_tensor pair[2] = {good, bad[i]};
    omni_input input;
    memset(&input, 0, sizeof input);
    input.struct_size = sizeof input;
    input.tensors = pair;
    input.tensors_count = 2;
    EXPECT(omni_engine_feed(engine, 6, &input), OMNI_INVALID_ARGUMENT, parts[i]);
  }
  EXPECT_OK(omni_engine_release(engine, 6));
}

static void test_step(omni_engine* engine) {
  static const float data[6] = {1, 2, 3, 4, 5, 6};
  static const int64_t tokens[2] = {70, 71};
  const omni_tensor tensor = make_tensor("rows", data, 3, 2);
  omni_input input;
  memset(&input, 0, sizeof input);
  input.struct_size = sizeof input;
  input.tokens = tokens;
  input.tokens_count = 2;
  input.tensors = &tensor;
  input.tensors_count = 1;
  EXPECT_OK(omni_engine_admit(engine, 8, kEmpty, 2));
  EXPECT_OK(omni_engine_feed(engine, 8, &input));
  const uint64_t sequence = 8;
  omni_step* step = NULL;
  EXPECT_OK(omni_engine_step(engine, &sequence, 1, &step));
  CHECK(omni_step_count(step) == 1);

  omni_result result;
  result.struct_size = sizeof result;
  EXPECT_OK(omni_step_result(step, 0, &result));
  CHECK(result.state == OMNI_SEQUENCE_READY && result.sequence == 8 && result.message_size == 0);
  CHECK(result.tokens_count == 3 && result.tokens[0] == 70 && result.tokens[1] == 71 &&
        result.tokens[2] == 0);
  CHECK(result.tensors_count == 1);
  omni_tensor out;
  out.struct_size = sizeof out;
  EXPECT_OK(omni_step_tensor(step, 0, 0, &out));
  CHECK(out.dtype == OMNI_FLOAT32 && out.ndim == 2 && out.dims[0] == 3 && out.dims[1] == 2);
  CHECK(out.name_size == 4 && memcmp(out.name, "rows", 4) == 0);
  CHECK(out.data_size == sizeof data && out.data != data && memcmp(out.data, data, sizeof data) == 0);
  EXPECT(omni_step_result(step, 1, &result), OMNI_INVALID_ARGUMENT, "result 1 of a step of 1");
  EXPECT(omni_step_tensor(step, 0, 1, &out), OMNI_INVALID_ARGUMENT, "tensor 1 of a result with 1");
  omni_step_free(step);

  /* An error of the whole call leaves the out-parameter alone. */
  step = (omni_step*)&failures;
  const uint64_t unknown = 99;
  EXPECT(omni_engine_step(engine, &unknown, 1, &step), OMNI_NOT_FOUND, "no sequence 99");
  EXPECT(omni_engine_step(engine, NULL, 1, &step), OMNI_INVALID_ARGUMENT, "sequences is NULL");
  CHECK(step == (omni_step*)&failures);
  /* The sequence is not released: freeing the engine frees it. */
}

/* A tensor that another library over the same libtorch has made, with its rows and columns exchanged. */
static void test_foreign_tensor(void) {
  enum { kFloat = 6 }; /* of c10::ScalarType */
  float data[6] = {1, 2, 3, 4, 5, 6};
  static const float turned[6] = {1, 4, 2, 5, 3, 6};
  int64_t sizes[2] = {2, 3};
  Tensor rows = NULL;
  Tensor columns = NULL;
  CHECK(Tensor_FromBlob(data, kFloat, sizes, 2, &rows) == NULL);
  CHECK(Transpose(rows, 0, 1, &columns) == NULL);
  omni_tensor out;
  memset(&out, 0x55, sizeof out);
  out.struct_size = 0;
  omni_buffer* bytes = NULL;
  EXPECT(omni_tensor_copy(columns, &out, &bytes), OMNI_INVALID_ARGUMENT, "struct_size is not set");
  CHECK(bytes == NULL && out.ndim == 0x55555555);
  out.struct_size = sizeof out;
  EXPECT_OK(omni_tensor_copy(columns, &out, &bytes));
  Tensor_Close(columns);
  Tensor_Close(rows);
  CHECK(out.dtype == OMNI_FLOAT32 && out.ndim == 2 && out.dims[0] == 3 && out.dims[1] == 2 &&
        out.name_size == 0);
  CHECK(out.data == omni_buffer_data(bytes) && out.data_size == sizeof turned);
  CHECK(memcmp(out.data, turned, sizeof turned) == 0);
  omni_buffer_free(bytes);
}

/* The flight recorder from start to the end of a dump. */
static void test_ring(const char* folder) {
  static const char config[] =
      "{\"recorder\":\"stream\",\"session\":\"ring\",\"worker\":\"w\",\"ring_seconds\":60}";
  omni_recorder* ring = NULL;
  EXPECT_OK(omni_recorder_start(config, strlen(config), &ring));
  EXPECT(omni_recorder_scope_begin(ring, NULL, 0), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT_OK(omni_recorder_scope_begin(ring, "stage.wait and more", 10));
  EXPECT_OK(omni_recorder_scope_end(ring));
  EXPECT(omni_recorder_scope_end(ring), OMNI_FAILED_PRECONDITION, "no scope has begun");
  omni_buffer* buffer = NULL;
  EXPECT(omni_recorder_status(ring, NULL), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT_OK(omni_recorder_status(ring, &buffer));
  EXPECT_JSON(buffer, "\"events\":1,");
  EXPECT(omni_recorder_step_end(ring), OMNI_FAILED_PRECONDITION, "no step has begun");
  EXPECT_OK(omni_recorder_step_begin(ring, 7));
  EXPECT(omni_recorder_step_begin(ring, 8), OMNI_FAILED_PRECONDITION, "the step before has not ended");
  EXPECT_OK(omni_recorder_step_end(ring));
  buffer = NULL;
  EXPECT_OK(omni_recorder_status(ring, &buffer));
  EXPECT_JSON(buffer, "\"events\":2,");

  char dump_config[5000];
  const int size = snprintf(dump_config, sizeof dump_config,
                            "{\"session\":\"s1\",\"trace_path\":\"%s/ring.pt.trace.json\"}", folder);
  omni_recorder* dump = (omni_recorder*)&failures;
  EXPECT(omni_recorder_dump(ring, kEmpty, 2, &dump), OMNI_INVALID_ARGUMENT, "session");
  EXPECT(omni_recorder_dump(ring, dump_config, (size_t)size, NULL), OMNI_INVALID_ARGUMENT, "NULL");
  CHECK(dump == (omni_recorder*)&failures);
  EXPECT_OK(omni_recorder_dump(ring, dump_config, (size_t)size, &dump));
  CHECK(omni_runtime_live("recorder") == 2);
  EXPECT(omni_recorder_stop(dump), OMNI_FAILED_PRECONDITION, "does not record");
  buffer = NULL;
  EXPECT_OK(omni_recorder_finish(dump, &buffer));
  EXPECT_JSON(buffer, "ring.pt.trace.json");
  omni_recorder_free(dump);
  EXPECT_OK(omni_recorder_stop(ring));
  EXPECT(omni_recorder_dump(ring, dump_config, (size_t)size, &dump), OMNI_FAILED_PRECONDITION,
         "does not record");
  omni_recorder_free(ring);
  snprintf(dump_config, sizeof dump_config, "%s/ring.pt.trace.json", folder);
  CHECK(remove(dump_config) == 0);
}

/* While the torch thread is in the middle of a step. */
static void* cut_and_finish(void* recorder) {
  EXPECT_OK(omni_recorder_cut(recorder));
  EXPECT(omni_recorder_cut(recorder), OMNI_FAILED_PRECONDITION, "does not record");
  omni_buffer* buffer = NULL;
  EXPECT_OK(omni_recorder_finish(recorder, &buffer));
  CHECK(strstr((const char*)omni_buffer_data(buffer), "\"steps\":0") != NULL);
  omni_buffer_free(buffer);
  return NULL;
}

static void test_cut(void) {
  static const char config[] = "{\"recorder\":\"stream\",\"session\":\"s\",\"worker\":\"w\"}";
  EXPECT(omni_recorder_cut(NULL), OMNI_INVALID_ARGUMENT, "NULL");
  omni_recorder* recorder = NULL;
  EXPECT_OK(omni_recorder_start(config, strlen(config), &recorder));
  EXPECT(omni_recorder_call_site(recorder, NULL, 0, "x", 1), OMNI_INVALID_ARGUMENT, "NULL");
  EXPECT_OK(omni_recorder_call_site(recorder, "ProfilerStep", 12, "c_test.c(1): test_cut", 21));
  EXPECT_OK(omni_recorder_step_begin(recorder, 0));
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, cut_and_finish, recorder) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  EXPECT_OK(omni_recorder_stop(recorder));
  EXPECT(omni_recorder_stop(recorder), OMNI_FAILED_PRECONDITION, "does not record");
  omni_recorder_free(recorder);
}

static void* call_from_another_thread(void* engine) {
  EXPECT(omni_engine_release(engine, 8), OMNI_WRONG_THREAD, "not the thread");
  EXPECT(omni_runtime_init(kEmpty, 2), OMNI_WRONG_THREAD, "another thread");
  omni_recorder* recorder = NULL;
  EXPECT(omni_recorder_start(kEmpty, 2, &recorder), OMNI_WRONG_THREAD, "not the thread");
  EXPECT(omni_recorder_stop(NULL), OMNI_WRONG_THREAD, "not the thread");
  EXPECT(omni_recorder_scope_begin(NULL, kEmpty, 2), OMNI_WRONG_THREAD, "not the thread");
  return NULL;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  CHECK(omni_abi_version() == OMNI_ABI_VERSION);
  omni_engine* engine = NULL;
  EXPECT(omni_engine_open(kEmpty, 2, &engine), OMNI_FAILED_PRECONDITION,
         "omni_runtime_init has not been called");
  EXPECT_OK(omni_runtime_init("{\"threads\":1}", 13));
  write_file(argv[1], "config.json", "{}", 2);
  write_file(argv[1], "model.safetensors", "\2\0\0\0\0\0\0\0{}", 10);

  test_runtime();
  test_null_arguments();
  test_bad_configs();
  engine = open_fake(argv[1]);
  EXPECT(omni_engine_admit(engine, 1, kEmpty, 2), OMNI_FAILED_PRECONDITION, "not loaded");
  int64_t done = 0;
  int64_t total = 1;
  while (done < total) EXPECT_OK(omni_engine_load(engine, &done, &total));
  omni_buffer* info = NULL;
  EXPECT_OK(omni_engine_info(engine, &info));
  EXPECT_JSON(info, "\"model\":\"fake\"");
  test_struct_sizes(engine);
  test_bad_tensors(engine);
  test_step(engine);
  test_foreign_tensor();
  test_ring(argv[1]);
  test_cut();
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, call_from_another_thread, engine) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(omni_runtime_live("engine") == 1 && omni_runtime_live("sequence") == 1);
  omni_engine_free(engine);

  static const char* const classes[] = {"status", "buffer", "engine", "sequence", "step", "recorder"};
  for (size_t i = 0; i < sizeof classes / sizeof classes[0]; ++i) {
    if (omni_runtime_live(classes[i]) != 0) {
      fprintf(stderr, "%d handles of class %s are alive\n", (int)omni_runtime_live(classes[i]), classes[i]);
      ++failures;
    }
  }
  if (failures == 0) puts("ok");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
