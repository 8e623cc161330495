//go:build cuda

package main

// withCUDA says that the workers of this build can use GPUs.
const withCUDA = true
