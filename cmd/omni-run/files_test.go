package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
)

func TestFileStem(t *testing.T) {
	tests := map[string]string{
		"a-b_c.1":                "a-b_c.1",
		"../../etc/passwd":       "_._.._etc_passwd",
		".hidden":                "_hidden",
		"a b\tc\x00d\ne":         "a_b_c_d_e",
		`c:\d|e*?"<>`:            "c__d_e_____",
		"Größe-你好":               "Größe-你好",
		"\xff":                   "_",
		strings.Repeat("é", 300): strings.Repeat("é", 100),
	}
	for id, want := range tests {
		t.Run(id[:min(len(id), 20)], func(t *testing.T) {
			got := fileStem(id)
			require.Equal(t, want, got)
			require.True(t, utf8.ValidString(got))
			require.Equal(t, got, filepath.Base(got), "it stays in its folder")
		})
	}
}

func TestRequestsWithoutAnIDGetFreeNumbers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"0.txt", "output_2.wav"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	requests := []pipeline.Request{{}, {ID: "3"}, {}, {ID: "named"}}
	folder, err := newOutputFolder(dir, requests)
	require.NoError(t, err)
	var ids []string
	for _, request := range requests {
		ids = append(ids, request.ID)
	}
	require.Equal(t, []string{"1", "3", "4", "named"}, ids)
	require.Equal(t, filepath.Join(dir, "output_4.wav"), folder.audioPath(folder.stems["4"]))
}

func TestOutputFolderRefuses(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mine.txt"), []byte("mine"), 0o600))
	tests := []struct {
		name, dir string
		ids       []string
		want      string
	}{
		{"a file that is there", dir, []string{"mine"}, "mine.txt is there already"},
		{"ids that differ only in what a name cannot hold", dir, []string{"a/b", "a:b"}, "would share the file a_b.txt"},
		{"a folder that is a file", filepath.Join(dir, "mine.txt"), nil, "--output-dir"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var requests []pipeline.Request
			for _, id := range test.ids {
				requests = append(requests, pipeline.Request{ID: id})
			}
			_, err := newOutputFolder(test.dir, requests)
			var usage *usageError
			require.ErrorAs(t, err, &usage)
			require.ErrorContains(t, err, test.want)
		})
	}
	text, err := os.ReadFile(filepath.Join(dir, "mine.txt"))
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))
}
