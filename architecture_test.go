// Package omni_test holds the rules of the whole repository, as tests: which package may know which, where C may be
// called, and what may run before main. docs/architecture.md draws the same picture.
package omni_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/omni-run/omni"

// goPackage is what `go list -json` says about a package.
type goPackage struct {
	ImportPath   string
	Dir          string
	Standard     bool
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Deps         []string
}

// name is the path inside the module, "" for a package of others.
func (p goPackage) name() string {
	name, _ := strings.CutPrefix(p.ImportPath, module+"/")
	return name
}

// list is what `go list -json` prints with these arguments.
func list(t *testing.T, arguments ...string) []goPackage {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, arguments...)...)
	var stderr strings.Builder
	command.Stderr = &stderr
	text, err := command.Output()
	require.NoError(t, err, stderr.String())
	var all []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(text))); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		all = append(all, p)
	}
	require.NotEmpty(t, all)
	return all
}

// packages are those of the module, each with the files of all builds.
func packages(t *testing.T) []goPackage {
	t.Helper()
	all := list(t, "./...")
	for _, cuda := range list(t, "-tags", "cuda", "./...") {
		i := slices.IndexFunc(all, func(p goPackage) bool { return p.ImportPath == cuda.ImportPath })
		if i < 0 {
			all = append(all, cuda)
			continue
		}
		p := &all[i]
		for plain, tagged := range map[*[]string][]string{
			&p.GoFiles: cuda.GoFiles, &p.CgoFiles: cuda.CgoFiles, &p.TestGoFiles: cuda.TestGoFiles,
			&p.XTestGoFiles: cuda.XTestGoFiles, &p.Imports: cuda.Imports, &p.Deps: cuda.Deps,
		} {
			*plain = append(*plain, tagged...)
			slices.Sort(*plain)
			*plain = slices.Compact(*plain)
		}
	}
	return all
}

// edge is a dependency, direct or not, that must not exist.
type edge struct {
	from   []string // packages inside the module, with all below them
	to     []string // packages inside the module with all below them, or packages of others by their full path, likewise
	alone  []string // more packages inside the module, without those below
	direct bool     // only a direct dependency must not exist
	reason string
}

const (
	gotorch = "github.com/wangkuiyi/gotorch"
	nvml    = "github.com/NVIDIA/go-nvml"
	echo    = "github.com/labstack/echo/v4"
	cli     = "github.com/urfave/cli/v2"
)

var forbidden = []edge{
	{
		from: []string{"api", "cmd/omni-run", "examples", "pipeline", "profiler"}, to: []string{"torch", gotorch},
		reason: "libtorch belongs to the worker: the parent starts without it, and a fault in it ends one stage, not the service",
	},
	{
		from: []string{"torch"}, to: []string{"api", "cmd", "examples", "pipeline", "profiler"},
		reason: "torch binds the C library and knows nothing of what it is used for",
	},
	{
		from: []string{"profiler"}, to: []string{"api", "cmd", "examples", "pipeline", echo, cli},
		reason: "the profiler is below the pipeline: it can be used and tested without one, and knows no HTTP and no command line",
	},
	{
		from: []string{"pipeline"}, to: []string{"api", "cmd", "examples", echo, cli},
		reason: "the pipeline serves any front: it knows no HTTP and no command line",
	},
	{
		from: []string{"api"}, to: []string{"cmd", "examples", cli},
		reason: "api is below the commands: any program can serve a pipeline",
	},
	{
		from: []string{"api", "cmd", "examples", "profiler", "torch"}, to: []string{"pipeline/family/familytest", "pipeline/pipelinetest", "testing"},
		reason: "what tests share is for tests: no program carries it along",
	},
	{
		from: []string{"cmd"}, to: []string{"examples"},
		reason: "examples show how others use the packages: nothing of ours rests on them",
	},
	{
		from: []string{"api/client"}, to: []string{"pipeline", "profiler", echo},
		reason: "the client is for programs that have nothing but a server's address",
	},
	{
		from: []string{"api"}, to: []string{"pipeline/worker", "pipeline/transport", "os/exec"}, direct: true,
		reason: "api knows no processes, only the pipeline",
	},
	{
		from: []string{"cmd/omni-worker", "pipeline/worker"}, to: []string{"api", echo, cli},
		reason: "the worker has no front of its own",
	},
	{
		from: []string{"cmd/omni-worker", "pipeline/worker"}, alone: []string{"pipeline"},
		reason: "the worker is told what to do by messages: it knows nothing of the process that sends them",
	},
	{
		from: []string{"cmd/omni-worker", "pipeline/worker", "torch"}, to: []string{"profiler/gpu", nvml},
		reason: "go-nvml's linker flags hide undefined symbols: a missing C function would link and fail at run time",
	},
}

// within reports whether the package name is one of roots or below one.
func within(name string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return name == root || strings.HasPrefix(name, root+"/") })
}

func (e edge) forbids(dependency string) bool {
	inside, ours := strings.CutPrefix(dependency, module+"/")
	if ours {
		return within(inside, e.to) || slices.Contains(e.alone, inside)
	}
	return within(dependency, e.to)
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		for _, rule := range forbidden {
			if !within(p.name(), rule.from) {
				continue
			}
			dependencies := p.Deps
			if rule.direct {
				dependencies = p.Imports
			}
			for _, dependency := range dependencies {
				if rule.forbids(dependency) {
					t.Errorf("%s depends on %s: %s", p.name(), strings.TrimPrefix(dependency, module+"/"), rule.reason)
				}
			}
		}
	}
}

// A rule about a package that was renamed would hold for ever.
func TestRulesNamePackagesThatExist(t *testing.T) {
	known := map[string]bool{}
	for _, p := range packages(t) {
		for _, path := range append(p.Deps, p.ImportPath) {
			inside, _ := strings.CutPrefix(path, module+"/")
			for ; inside != "."; inside = filepath.Dir(inside) {
				known[inside] = true
			}
		}
	}
	for _, rule := range forbidden {
		for _, name := range slices.Concat(rule.from, rule.to, rule.alone) {
			if !known[name] {
				t.Errorf("the rule %q names %s, which nothing is in or depends on", rule.reason, name)
			}
		}
	}
}

// filesImporting returns the files of the module, as package/file, that import path or a package below it.
func filesImporting(t *testing.T, path string) []string {
	t.Helper()
	var found []string
	eachFile(t, parser.ImportsOnly, func(name string, file *ast.File) {
		for _, imported := range file.Imports {
			if value, err := strconv.Unquote(imported.Path.Value); err == nil && within(value, []string{path}) {
				found = append(found, name)
			}
		}
	})
	return found
}

func eachFile(t *testing.T, mode parser.Mode, visit func(name string, file *ast.File)) {
	t.Helper()
	for _, p := range packages(t) {
		eachFileOf(t, p, mode, visit)
	}
}

func eachFileOf(t *testing.T, p goPackage, mode parser.Mode, visit func(name string, file *ast.File)) {
	t.Helper()
	for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, mode)
		require.NoError(t, err)
		visit(p.name()+"/"+name, file)
	}
}

func TestCIsCalledInOnePlacePerLibrary(t *testing.T) {
	for _, file := range filesImporting(t, "C") {
		if file != "torch/cgo.go" && !strings.HasPrefix(file, "profiler/gpu/") {
			t.Errorf(`%s imports "C": calls of libomni.so stand in torch/cgo.go, those of the GPU driver in profiler/gpu`, file)
		}
	}
}

// mayUseC says of whose packages C may be a part, and why.
var mayUseC = map[string]string{
	module + "/torch": "binds libomni.so",
	gotorch:           "single tensors and pickles of torch",
	nvml:              "asks the driver for GPUs",
}

// A dependency with C in it needs a compiler, links what it likes and runs where no Go tool looks.
func TestNoOtherDependencyBringsC(t *testing.T) {
	roots := slices.Collect(maps.Keys(mayUseC))
	for _, tags := range []string{"", "cuda"} {
		for _, p := range list(t, "-deps", "-test", "-tags", tags, "./...") {
			path, _, _ := strings.Cut(p.ImportPath, " ") // a variant for tests has a remark behind it
			if len(p.CgoFiles) > 0 && !p.Standard && !within(path, roots) {
				t.Errorf("%s, which the module depends on, calls C: mayUseC lists the few that may", path)
			}
		}
	}
}

// mayImportGotorch holds the one importer, and the tests that use gotorch to compute the same a second time.
var mayImportGotorch = []string{"torch/gotorch.go", "torch/gotorch_test.go", "torch/golden/gotorch_test.go"}

func TestGotorchHasOneImporter(t *testing.T) {
	for _, file := range filesImporting(t, gotorch) {
		if !slices.Contains(mayImportGotorch, file) {
			t.Errorf("%s imports gotorch: every error of it panics, and torch/gotorch.go is the one place that recovers", file)
		}
	}
}

// Every test of package torch ends with the live counters of the C library at zero: it calls checkNoLeaks, or withEngine,
// which does.
func TestTestsOfTorchCountHandles(t *testing.T) {
	tests := 0
	eachFile(t, parser.SkipObjectResolution, func(name string, file *ast.File) {
		if file.Name.Name != "torch" || !strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Recv != nil || !isTest.MatchString(function.Name.Name) || function.Name.Name == "TestMain" {
				continue
			}
			tests++
			if !calls(function, "checkNoLeaks", "withEngine") {
				t.Errorf("%s: %s does not call checkNoLeaks", name, function.Name.Name)
			}
		}
	})
	require.Greater(t, tests, 30)
}

// isTest is the name of a test or fuzz function.
var isTest = regexp.MustCompile(`^(Test|Fuzz)[A-Z]`)

// calls reports whether a function calls one of these functions of its package.
func calls(function *ast.FuncDecl, names ...string) (found bool) {
	ast.Inspect(function, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if called, ok := call.Fun.(*ast.Ident); ok && slices.Contains(names, called.Name) {
				found = true
			}
		}
		return !found
	})
	return found
}

// mayInit lists the files that need an init function, and why.
var mayInit = map[string]string{
	"cmd/omni-worker/main.go":                   "pins the main goroutine to the main thread",
	"torch/internal/keepthreads/keepthreads.go": "must act before gotorch's own init",
	"torch/gotorch.go":                          "takes back what keepthreads did",
}

func TestNothingRunsBeforeMain(t *testing.T) {
	eachFile(t, parser.SkipObjectResolution, func(name string, file *ast.File) {
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if ok && function.Name.Name == "init" && function.Recv == nil && mayInit[name] == "" {
				t.Errorf("%s has an init function: tables are literals, and mayInit lists the few that must act before main", name)
			}
		}
	})
}

func TestNoticeNamesEveryModuleThatIsLinked(t *testing.T) {
	command := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/...")
	modules, err := command.Output()
	require.NoError(t, err)
	notice, err := os.ReadFile("NOTICE")
	require.NoError(t, err)
	paths := strings.Fields(string(modules))
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if path != module && !strings.Contains(string(notice), "  "+path+" ") {
			t.Errorf("NOTICE does not name %s, which is linked into a command", path)
		}
	}
}

// A package's comment says what it is a model of, and its limits.
func TestEveryPackageExplainsItself(t *testing.T) {
	for _, p := range packages(t) {
		text := ""
		eachFileOf(t, p, parser.ParseComments|parser.SkipObjectResolution, func(name string, file *ast.File) {
			if file.Doc != nil && len(file.Doc.Text()) > len(text) && (!strings.HasSuffix(name, "_test.go") || len(p.GoFiles)+len(p.CgoFiles) == 0) {
				text = file.Doc.Text()
			}
		})
		if len(strings.Fields(text)) < 20 {
			t.Errorf("%s: its package comment is %q, want one that explains it", p.name(), text)
		}
	}
}

// link is a Markdown link to a file of the repository.
var link = regexp.MustCompile(`\]\(([^)#]+)`)

func TestDocumentsLinkToFilesThatExist(t *testing.T) {
	documents, err := filepath.Glob("*.md")
	require.NoError(t, err)
	more, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	for _, document := range append(documents, more...) {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), match[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", document, match[1])
			}
		}
	}
}

// named is a path of the repository in CONTRIBUTING.md: `csrc/models/models.inc`.
var named = regexp.MustCompile("`((?:csrc|torch|profiler|pipeline|api|cmd|scripts|docs)/[A-Za-z0-9_./-]+)`")

func TestContributingNamesFilesThatExist(t *testing.T) {
	text, err := os.ReadFile("CONTRIBUTING.md")
	require.NoError(t, err)
	matches := named.FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(matches), 20)
	for _, match := range matches {
		if _, err := os.Stat(match[1]); err != nil {
			t.Errorf("CONTRIBUTING.md names %s, which is not there", match[1])
		}
	}
}
