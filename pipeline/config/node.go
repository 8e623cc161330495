package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder collects what is wrong with a file, and what in it has no effect.
type decoder struct {
	file    string
	faults  []error
	notes   []string
	anchors map[string]ast.Node
}

// node is one value of the file with its path from the root, such as stages[1].devices.
type node struct {
	d    *decoder
	path string
	ast  ast.Node
}

// Limits of a file. Aliases can make a few lines contain themselves, or stand for millions of values.
const (
	maxDepth  = 64
	maxValues = 20_000
)

// parse reads the one document of a file. A syntax fault is returned with its line; ok is false if there is no
// document.
func parse(data []byte, file string) (root node, ok bool, err error) {
	d := &decoder{file: file, anchors: map[string]ast.Node{}}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		var fault yaml.Error
		if errors.As(err, &fault) && fault.GetToken() != nil {
			return node{}, false, fmt.Errorf("%s:%d: %s", file, fault.GetToken().Position.Line, fault.GetMessage())
		}
		return node{}, false, fmt.Errorf("%s: %w", file, err)
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return node{d: d}, false, nil
	case 1:
	default:
		return node{}, false, fmt.Errorf("%s:%d: a second document begins, want one", file, bodies[1].GetToken().Position.Line)
	}
	ast.Walk(anchorFinder{d}, bodies[0])
	root = node{d: d, ast: bodies[0]}
	budget := maxValues
	if root.tooLarge(0, &budget) {
		return node{}, false, fmt.Errorf("%s: want at most %d values, nested at most %d deep", file, maxValues, maxDepth)
	}
	return root, true, nil
}

type anchorFinder struct{ d *decoder }

// Visit implements ast.Visitor.
func (f anchorFinder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok {
		f.d.anchors[a.Name.String()] = a.Value
	}
	return f
}

// resolve steps through anchors and aliases.
func (n node) resolve() ast.Node {
	at := n.ast
	for range maxDepth {
		switch v := at.(type) {
		case *ast.AnchorNode:
			at = v.Value
		case *ast.AliasNode:
			target, ok := n.d.anchors[v.Value.String()]
			if !ok {
				return at
			}
			at = target
		default:
			return at
		}
	}
	return at
}

// tooLarge walks the values as they are with all aliases written out, and stops when the budget is used up.
func (n node) tooLarge(depth int, budget *int) bool {
	*budget--
	if depth > maxDepth || *budget < 0 {
		return true
	}
	below := func(child ast.Node) bool { return node{d: n.d, ast: child}.tooLarge(depth+1, budget) }
	switch v := n.resolve().(type) {
	case *ast.MappingNode:
		return slices.ContainsFunc(v.Values, func(e *ast.MappingValueNode) bool { return below(e.Value) })
	case *ast.MappingValueNode:
		return below(v.Value)
	case *ast.SequenceNode:
		return slices.ContainsFunc(v.Values, below)
	}
	return false
}

// at is "file:line: path", the place of a fault.
func (n node) at() string {
	place := n.d.file
	if n.ast != nil && n.ast.GetToken() != nil {
		place += fmt.Sprintf(":%d", n.ast.GetToken().Position.Line)
	}
	if n.path != "" {
		place += ": " + n.path
	}
	return place
}

func (n node) fault(format string, args ...any) {
	n.d.faults = append(n.d.faults, fmt.Errorf("%s: %w", n.at(), fmt.Errorf(format, args...)))
}

func (n node) note(reason string) {
	n.d.notes = append(n.d.notes, n.at()+" has no effect here: "+reason)
}

func (n node) isNull() bool { return n.resolve() == nil || n.resolve().Type() == ast.NullType }

// describe names a value's kind for "want ..., got ...".
func (n node) describe() string {
	switch v := n.resolve().(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return fmt.Sprintf("%q", v.Value)
	case *ast.LiteralNode:
		return "a text"
	default:
		return v.String()
	}
}

// entry is one key of a mapping. line is that of the key.
type entry struct {
	key   string
	value node
}

// entries returns the keys of a mapping in their order; any other value is a fault. Keys that occur twice are faults
// of the parser.
func (n node) entries() []entry {
	var values []*ast.MappingValueNode
	switch v := n.resolve().(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		n.fault("want a mapping, got %s", n.describe())
		return nil
	}
	out := make([]entry, 0, len(values))
	for _, v := range values {
		key, ok := v.Key.(ast.ScalarNode)
		if !ok || v.Key.IsMergeKey() {
			node{d: n.d, path: n.path, ast: v.Key}.fault("key %s: want a plain word", v.Key.String())
			continue
		}
		name := fmt.Sprint(key.GetValue())
		value := node{d: n.d, path: join(n.path, name), ast: v.Value}
		if v.Value == nil || v.Value.Type() == ast.NullType {
			// The parser may put an absent value on the line after its key.
			value.ast = ast.Null(v.Key.GetToken())
		}
		out = append(out, entry{key: name, value: value})
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// elements returns the values of a list; any other value is a fault.
func (n node) elements() []node {
	list, ok := n.resolve().(*ast.SequenceNode)
	if !ok {
		n.fault("want a list, got %s", n.describe())
		return nil
	}
	out := make([]node, len(list.Values))
	for i, v := range list.Values {
		out[i] = node{d: n.d, path: fmt.Sprintf("%s[%d]", n.path, i), ast: v}
	}
	return out
}

// text returns a string, or a number as it is written ("0" and 0 are the same device).
func (n node) text() (string, bool) {
	switch v := n.resolve().(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(v.Value.Value), true
	case *ast.IntegerNode:
		return fmt.Sprint(v.Value), true
	}
	n.fault("want a text, got %s", n.describe())
	return "", false
}

// integer returns a whole number that fits in 64 bits.
func (n node) integer() (int64, bool) {
	if v, ok := n.resolve().(*ast.IntegerNode); ok {
		if i, ok := toInt(v.Value); ok {
			return i, true
		}
	}
	n.fault("want a whole number, got %s", n.describe())
	return 0, false
}

// small returns a whole number that fits in an int of any machine.
func (n node) small() (int, bool) {
	i, ok := n.integer()
	if ok && (i > 1<<30 || i < -(1<<30)) {
		n.fault("%d is out of range", i)
		return 0, false
	}
	return int(i), ok
}

func (n node) boolean() (value, ok bool) {
	if v, ok := n.resolve().(*ast.BoolNode); ok {
		return v.Value, true
	}
	n.fault("want true or false, got %s", n.describe())
	return false, false
}

// plain returns the value in Go's own types: map[string]any, []any, string, bool, int64, uint64, float64, nil.
func (n node) plain() any {
	switch v := n.resolve().(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		out := map[string]any{}
		for _, e := range n.entries() {
			out[e.key] = e.value.plain()
		}
		return out
	case *ast.SequenceNode:
		out := []any{}
		for _, e := range n.elements() {
			out = append(out, e.plain())
		}
		return out
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	case nil, *ast.NullNode:
		return nil
	case ast.ScalarNode:
		return v.GetValue()
	}
	n.fault("this kind of value is not supported")
	return nil
}
