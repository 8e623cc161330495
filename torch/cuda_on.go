//go:build cuda

package torch

// CUDABuild says that this build has a CUDA part: [Init] opens CUDA, and [RuntimeInfo] tells what there is. Build tag
// cuda sets it.
const CUDABuild = true
