package checkpoint_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint"
)

func put(t testing.TB, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// cache makes a Hugging Face cache that holds org/name at one commit, with a branch and a pull request.
func cache(t testing.TB, hub string) (snapshot string) {
	t.Helper()
	repo := filepath.Join(hub, "models--org--name")
	snapshot = filepath.Join(repo, "snapshots", "abc123")
	put(t, filepath.Join(snapshot, "config.json"), `{"architectures":["A"]}`)
	put(t, filepath.Join(repo, "refs", "main"), "abc123\n")
	put(t, filepath.Join(repo, "refs", "refs", "pr", "1"), "abc123")
	put(t, filepath.Join(repo, "refs", "gone"), "def456")
	put(t, filepath.Join(repo, "refs", "evil"), "../../../..")
	put(t, filepath.Join(hub, "models--plain", "snapshots", "1", "config.json"), `{}`)
	put(t, filepath.Join(hub, "models--plain", "refs", "main"), "1")
	return snapshot
}

func TestResolveFindsTheCache(t *testing.T) {
	root := t.TempDir()
	places := map[string]map[string]string{
		"a": {"HF_HUB_CACHE": root + "/a", "HF_HOME": root + "/none", "HOME": root},
		"b": {"HUGGINGFACE_HUB_CACHE": root + "/b", "HF_HOME": root + "/none"},
		"c": {"HF_HOME": root + "/c"},
		"d": {"XDG_CACHE_HOME": root + "/d", "HOME": root + "/none"},
		"e": {"HOME": root + "/e"},
		"f": {"HF_HOME": "~/hf", "HOME": root + "/f"},
	}
	hubs := map[string]string{"a": "a", "b": "b", "c": "c/hub", "d": "d/huggingface/hub", "e": "e/.cache/huggingface/hub", "f": "f/hf/hub"}
	for name, vars := range places {
		want := cache(t, filepath.Join(root, hubs[name]))
		got, err := checkpoint.Resolve("org/name", env(vars))
		require.NoError(t, err, name)
		assert.Equal(t, want, got, name)
	}
}

func TestResolveNames(t *testing.T) {
	hub := t.TempDir()
	snapshot := cache(t, hub)
	t.Chdir(t.TempDir())
	put(t, "here/config.json", "{}")
	put(t, "file", "")
	here, err := filepath.Abs("here")
	require.NoError(t, err)
	download := "; download it with: hf download "
	tests := []struct{ name, model, want, err string }{
		{"a folder", "here", here, ""},
		{"a folder with a slash", "./here/", here, ""},
		{"an id", "org/name", snapshot, ""},
		{"an id without an organisation", "plain", filepath.Join(hub, "models--plain", "snapshots", "1"), ""},
		{"a branch", "org/name@main", snapshot, ""},
		{"a commit", "org/name@abc123", snapshot, ""},
		{"a pull request", "org/name@refs/pr/1", snapshot, ""},
		{"nothing", "", "", "no model given"},
		{"a file", "file", "", `model "file" is a file, want the checkpoint's folder`},
		{"an id that is not there", "org/other", "", `model "org/other" is neither a folder nor in the local Hugging Face cache (looked for ./org/other and ` + hub + "/models--org--other)" + download + "org/other"},
		{"a commit that is not there", "org/name@fff", "", "snapshots/fff)" + download + "org/name --revision fff"},
		{"a branch that is not there", "org/name@refs/pr/2", "", download + "org/name --revision refs/pr/2"},
		{"a branch whose commit is gone", "org/name@gone", "", "snapshots/def456)" + download + "org/name --revision gone"},
		{"a damaged branch", "org/name@evil", "", `refs/evil: "../../../.." cannot be a commit`},
		{"a path upwards", "../../etc", "", `model folder "../../etc" does not exist`},
		{"an id upwards", "org/..", "", `does not exist (and the name cannot be a Hugging Face id)`},
		{"an absolute path", "/no/such/folder", "", `model folder "/no/such/folder" does not exist`},
		{"too many parts", "a/b/c", "", `model folder "a/b/c" does not exist`},
		{"the separator inside", "a--b/c", "", `model folder "a--b/c" does not exist`},
		{"a revision upwards", "org/name@../../x", "", `"../../x" cannot be a revision`},
		{"an empty revision", "org/name@", "", `"" cannot be a revision`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := checkpoint.Resolve(tt.model, env(map[string]string{"HF_HUB_CACHE": hub}))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestResolveWithoutAHome(t *testing.T) {
	_, err := checkpoint.Resolve("org/name", env(nil))
	require.ErrorContains(t, err, "none of HF_HUB_CACHE, HF_HOME and HOME is set")
}

func TestOpenReadsBothSpellings(t *testing.T) {
	tests := []struct {
		name, config string
		want         checkpoint.Info
	}{
		{"transformers 4", `{"architectures":["A"],"model_type":"a","torch_dtype":"bfloat16"}`, checkpoint.Info{Architectures: []string{"A"}, ModelType: "a", DType: "bfloat16"}},
		{"transformers 5", `{"architectures":["A","B"],"dtype":"torch.float32"}`, checkpoint.Info{Architectures: []string{"A", "B"}, DType: "float32"}},
		{"both", `{"dtype":"float16","torch_dtype":"bfloat16"}`, checkpoint.Info{DType: "float16"}},
		{"null", `{"architectures":null,"dtype":null}`, checkpoint.Info{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "config.json"), tt.config)
			f, err := checkpoint.Open(dir, env(nil))
			require.NoError(t, err)
			assert.Equal(t, tt.want, f.Info)
			assert.Equal(t, dir, f.Path)
			assert.Equal(t, dir, f.Model)
		})
	}
}

func TestFaultsNameFileAndLine(t *testing.T) {
	dir := t.TempDir()
	_, err := checkpoint.Open(dir, env(nil))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "checkpoint "+dir+" has no config.json")

	put(t, filepath.Join(dir, "config.json"), "{\n \"architectures\": [],\n}")
	_, err = checkpoint.Open(dir, env(nil))
	require.ErrorContains(t, err, filepath.Join(dir, "config.json")+": line 3: invalid character '}'")

	put(t, filepath.Join(dir, "config.json"), "{\n \"architectures\": \"A\"\n}")
	_, err = checkpoint.Open(dir, env(nil))
	require.ErrorContains(t, err, "config.json: line 2: json: cannot unmarshal string")
}

func TestRequireNamesEverythingThatIsMissing(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "config.json"), "{}")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "spk_dict.pt"), 0o700))
	f, err := checkpoint.Open(dir, env(nil))
	require.NoError(t, err)
	require.NoError(t, f.Require("config.json"))
	require.EqualError(t, f.Require("config.json", "spk_dict.pt", "tokenizer.json"),
		"checkpoint "+dir+" is incomplete: it has no spk_dict.pt, no tokenizer.json")
}

func TestRequireWeights(t *testing.T) {
	for _, name := range []string{"model.safetensors", "model.safetensors.index.json", ""} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "config.json"), "{}")
		f, err := checkpoint.Open(dir, env(nil))
		require.NoError(t, err)
		if name == "" {
			require.EqualError(t, f.RequireWeights(), "checkpoint "+dir+" has no weights: want model.safetensors or model.safetensors.index.json")
			continue
		}
		put(t, filepath.Join(dir, name), "")
		require.NoError(t, f.RequireWeights())
	}
}

func FuzzResolve(f *testing.F) {
	for _, model := range []string{"org/name", "org/name@main", "..", "a/../b", "@", "/", "a@b/../c", "a\x00b"} {
		f.Add(model)
	}
	hub := f.TempDir()
	cache(f, hub)
	f.Fuzz(func(t *testing.T, model string) {
		got, err := checkpoint.Resolve(model, env(map[string]string{"HF_HUB_CACHE": hub}))
		if _, folder := os.Stat(model); err == nil && folder != nil {
			assert.True(t, strings.HasPrefix(got, hub+"/"), "%q leaves the cache: %s", model, got)
		}
	})
}
