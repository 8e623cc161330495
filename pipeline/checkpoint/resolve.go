package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// An id is "name" or "org/name", each part made of these characters and not starting with a dot: it can never
// climb out of the cache's folder.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?$`)

// A revision is a branch, a tag ("refs/pr/1" too) or a commit.
var revisionPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$`)

// Resolve returns the absolute folder of a model: a folder that exists, or the snapshot of an id ("org/name",
// "org/name@revision") in the local Hugging Face cache. The cache is HF_HUB_CACHE (or its old name
// HUGGINGFACE_HUB_CACHE), else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
func Resolve(model string, env func(string) string) (string, error) {
	if model == "" {
		return "", errors.New("no model given: want a folder or a Hugging Face id such as Qwen/Qwen2.5-Omni-7B")
	}
	info, err := os.Stat(model)
	switch {
	case err == nil && info.IsDir():
		path, err := filepath.Abs(model)
		if err != nil {
			return "", fmt.Errorf("model folder %q: %w", model, err)
		}
		return path, nil
	case err == nil:
		return "", fmt.Errorf("model %q is a file, want the checkpoint's folder", model)
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("model folder: %w", err)
	}
	id, revision, found := strings.Cut(model, "@")
	if !found {
		revision = "main"
	}
	if !idPattern.MatchString(id) || strings.Contains(id, "..") || strings.Contains(id, "--") {
		return "", fmt.Errorf("model folder %q does not exist (and the name cannot be a Hugging Face id)", model)
	}
	if !revisionPattern.MatchString(revision) || strings.Contains(revision, "..") {
		return "", fmt.Errorf("model %q: %q cannot be a revision", model, revision)
	}
	return inCache(id, revision, env)
}

// inCache finds models--org--name/snapshots/<commit>; refs/<revision> holds the commit of a branch or tag.
func inCache(id, revision string, env func(string) string) (string, error) {
	cache, err := cacheFolder(env)
	if err != nil {
		return "", err
	}
	repo := filepath.Join(cache, "models--"+strings.ReplaceAll(id, "/", "--"))
	miss := func(looked string) error {
		command := "hf download " + id
		if revision != "main" {
			command += " --revision " + revision
		}
		return fmt.Errorf("model %q is neither a folder nor in the local Hugging Face cache (looked for ./%s and %s); download it with: %s",
			id, id, looked, command)
	}
	if _, err := os.Stat(repo); err != nil {
		return "", miss(repo)
	}
	commit := revision
	ref := filepath.Join(repo, "refs", filepath.FromSlash(revision))
	data, err := os.ReadFile(ref)
	switch {
	case err == nil:
		commit = strings.TrimSpace(string(data))
		if !revisionPattern.MatchString(commit) || strings.Contains(commit, "/") || strings.Contains(commit, "..") {
			return "", fmt.Errorf("%s: %q cannot be a commit", ref, commit)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("revision of %s: %w", id, err)
	case strings.Contains(revision, "/"):
		return "", miss(ref)
	}
	snapshot := filepath.Join(repo, "snapshots", commit)
	if info, err := os.Stat(snapshot); err != nil || !info.IsDir() {
		return "", miss(snapshot)
	}
	return snapshot, nil
}

func cacheFolder(env func(string) string) (string, error) {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if v := env(name); v != "" {
			return absolute(v, env)
		}
	}
	if v := env("HF_HOME"); v != "" {
		return absolute(filepath.Join(v, "hub"), env)
	}
	if v := env("XDG_CACHE_HOME"); v != "" {
		return absolute(filepath.Join(v, "huggingface", "hub"), env)
	}
	return absolute("~/.cache/huggingface/hub", env)
}

// absolute expands a leading ~, as huggingface_hub does, and makes the path absolute.
func absolute(path string, env func(string) string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/') {
		home := env("HOME")
		if home == "" {
			return "", errors.New("the Hugging Face cache cannot be found: none of HF_HUB_CACHE, HF_HOME and HOME is set")
		}
		path = home + rest
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("hugging face cache: %w", err)
	}
	return path, nil
}
