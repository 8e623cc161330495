// Package pipelinetest runs pipelines without models: real processes, real messages, and engines that compute with
// arithmetic that a test can repeat.
//
// The worker is the test binary itself. TestMain of a package that uses it begins with [RunIfWorker]; [Config] then makes
// a pipeline.Config whose workers are that binary, and [Graph] the three stages of a speaking model: "thinker" turns a
// prompt into letters and rows, "talker" rows into codes, "code2wav" codes into samples once it has them all. [Expect]
// says what comes out. A [Script] makes a stage slow or has it fail at a chosen point in a chosen way.
//
// The engines take the parameters of the Qwen2.5-Omni family, so that a test can also run them under the real family
// with the tokenizer and template of a real checkpoint.
package pipelinetest
