package config

import (
	"github.com/goccy/go-yaml/ast"
)

// foreign are keys of vLLM and vLLM-Omni that mean something there and nothing, or one thing only, here. They may
// stand at a stage or in its engine_args, and some at the root. A nil check accepts every value.
var foreign = map[string]struct {
	check  func(n node) bool // the value that describes what happens here anyway
	reason string            // why there is no effect; or, if the check fails, why that value is refused
}{
	"gpu_memory_utilization":             {nil, "memory is taken as it is needed"},
	"enforce_eager":                      {nil, "there is no graph capture"},
	"trust_remote_code":                  {nil, "no code of a checkpoint is ever run"},
	"worker_cls":                         {nil, "workers are built in"},
	"scheduler_cls":                      {nil, "the scheduler is built in"},
	"worker_type":                        {nil, "workers are built in"},
	"model_arch":                         {nil, "the architecture is the checkpoint's"},
	"hf_config_name":                     {nil, "each engine knows its part of config.json"},
	"engine_output_type":                 {nil, "what a stage hands on is the model's"},
	"custom_process_input_func":          {nil, "what a stage takes in is the model's"},
	"is_comprehension":                   {nil, "the first stage reads the prompt"},
	"requires_multimodal_data":           {nil, "what a stage takes in is the model's"},
	"max_num_batched_tokens":             {nil, "batches are bounded by max_batch_size"},
	"max_model_len":                      {nil, "caches grow as they are needed, up to the model's own positions"},
	"mm_processor_cache_gb":              {nil, "there is no such cache"},
	"skip_mm_profiling":                  {nil, "memory is taken as it is needed"},
	"async_scheduling":                   {nil, "the scheduler is built in"},
	"enable_flashinfer_autotune":         {nil, "there is no flashinfer"},
	"distributed_executor_backend":       {nil, "a stage is one process"},
	"enable_chunked_prefill":             {nil, "a prompt is computed in one step"},
	"enable_prefix_caching":              {isFalse, "prompts are always computed in full; true is not supported"},
	"tensor_parallel_size":               {isOne, "a stage runs on one device; more than 1 is not supported"},
	"pipeline_parallel_size":             {isOne, "a stage runs on one device; more than 1 is not supported"},
	"data_parallel_size":                 {isOne, "a stage is one process; more than 1 is not supported"},
	"load_format":                        {isSafetensors, "weights come from safetensors; other formats are not supported (dummy: use omni-run make-checkpoint)"},
	"quantization":                       {node.isNull, "weights are used as they are; quantization is not supported"},
	"speculative_config":                 {node.isNull, "speculative decoding is not supported"},
	"enable_sleep_mode":                  {isFalse, "sleep mode is not supported"},
	"disable_log_stats":                  {nil, "statistics are asked for with --log-stats"},
	"limit_mm_per_prompt":                {nil, "prompts are text"},
	"enable_diffusion_pipeline_profiler": {isFalse, "profiles are configured with profiler_config; true is not supported"},
}

// readForeign notes or refuses a key of the table and reports whether the key is there.
func readForeign(e entry) bool {
	f, ok := foreign[e.key]
	switch {
	case !ok:
		return false
	case f.check != nil && !f.check(e.value):
		e.value.fault("%s: %s", e.value.describe(), f.reason)
	case f.check == nil:
		e.value.note(f.reason)
	}
	return true
}

func isFalse(n node) bool {
	v, ok := n.resolve().(*ast.BoolNode)
	return ok && !v.Value
}

func isOne(n node) bool {
	v, ok := n.resolve().(*ast.IntegerNode)
	if !ok {
		return false
	}
	i, ok := toInt(v.Value)
	return ok && i == 1
}

func isSafetensors(n node) bool {
	v, ok := n.resolve().(*ast.StringNode)
	return ok && (v.Value == "auto" || v.Value == "safetensors")
}
