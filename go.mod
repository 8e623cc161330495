module github.com/omni-run/omni

go 1.26
