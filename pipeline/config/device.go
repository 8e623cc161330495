package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// CheckDevice accepts "auto", "cpu" and "cuda:N".
func CheckDevice(device string) error {
	if device == Auto || device == "cpu" {
		return nil
	}
	if digits, ok := strings.CutPrefix(device, "cuda:"); ok && isIndex(digits) {
		return nil
	}
	return fmt.Errorf("unknown device %q, want auto, cpu or cuda:N", device)
}

// CheckDType accepts the members of DTypes.
func CheckDType(dtype string) error {
	if slices.Contains(DTypes, dtype) {
		return nil
	}
	return fmt.Errorf("unknown dtype %q, want one of %s", dtype, strings.Join(DTypes, ", "))
}

// normaliseDevice turns the spellings of vLLM-Omni ("0": the first GPU) and of torch ("cuda") into ours.
func normaliseDevice(text string) (string, error) {
	text = strings.TrimSpace(text)
	switch {
	case isIndex(text):
		return "cuda:" + text, nil
	case text == "cuda":
		return "cuda:0", nil
	case strings.Contains(text, ","):
		return "", fmt.Errorf("%q names several devices; a stage runs on one device here (tensor parallelism and replicas are not supported)", text)
	}
	return text, CheckDevice(text)
}

// normaliseDType accepts the names that torch, vLLM and checkpoints use for the same element types.
func normaliseDType(text string) (string, error) {
	text = strings.TrimPrefix(text, "torch.")
	switch text {
	case "float", "fp32":
		text = "float32"
	case "half", "fp16":
		text = "float16"
	case "bf16":
		text = "bfloat16"
	}
	return text, CheckDType(text)
}

func isIndex(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == text
}
