// Package keepthreads stops package gotorch from changing libtorch's thread count when a program starts.
//
// The init function of gotorch sets the count to half the number of CPUs unless OMP_NUM_THREADS or MKL_NUM_THREADS is
// set; on a machine with one CPU that is zero, which libtorch answers with an exception that nothing catches, and the
// process dies before main. This package sets the variable for the duration of that init function. It runs first:
// packages are initialised in the order of their import paths as soon as what they import is there, and this one
// imports nothing that gotorch does not.
package keepthreads

import "os"

const variable = "OMP_NUM_THREADS"

// set tells that the variable is ours and not the user's.
var set bool

func init() {
	if os.Getenv(variable) == "" && os.Getenv("MKL_NUM_THREADS") == "" {
		set = os.Setenv(variable, "1") == nil
	}
}

// Restore takes the variable back. To be called once gotorch is initialised and before libtorch computes.
func Restore() error {
	if !set {
		return nil
	}
	return os.Unsetenv(variable)
}
