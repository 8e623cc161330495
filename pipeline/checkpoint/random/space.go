package random

import (
	"fmt"
	"syscall"
)

// checkSpace reports a file system that has less room than a checkpoint needs, before anything is written. What cannot
// be asked is left to the writing itself.
func checkSpace(dir string, need int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return nil //nolint:nilerr // not every file system answers; a full one fails at the write
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < need {
		return fmt.Errorf("no space in %s: the checkpoint needs %d bytes, %d are free", dir, need, free)
	}
	return nil
}
