package profile

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode/utf8"

	"allotment/image"
)

var templateForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// maxTemplate is the largest size of a template's source in bytes: all of them go into the manifest.
const maxTemplate = 1 << 18

// functions are those that the device gives to templates, besides Go's own; see docs/architecture.md.
var functions = []string{"json", "quote", "lua", "php", "lines", "base64"}

// templates checks the templates and fills in their texts.
func (c *moduleCheck) templates() {
	seen := once{}
	for i := range c.m.Templates {
		key, t := item("template", i), &c.m.Templates[i]
		c.d.name(key+".name", t.Name, templateForm)
		seen.add(c.d, key+".name", t.Name)
		c.user(key+".user", t.User)
		for j, name := range t.Services {
			c.d.known(item(key+".services", j), "service", name, serviceNames(&c.m.Module))
		}
		unique(c.d, key+".services", t.Services)
		if path, ok := c.d.source(key+".source", c.m.Tree.Dir, t.Source); ok {
			c.template(key+".source", path, t)
		}
	}
}

// source checks the path of a file beside a declaration and returns where it lies.
func (d *document) source(key, dir, source string) (string, bool) {
	path := filepath.Join(dir, filepath.FromSlash(source))
	if source == "" {
		d.missing(key, "name a file beside this one")
		return "", false
	}
	if !filepath.IsLocal(source) || slices.Contains(strings.Split(source, "/"), "..") {
		d.fault(key, "want a path below the folder of this file", "source %q leads out", source)
		return "", false
	}
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		d.fault(key, "it is looked for below "+dir, "no file %q", source)
		return "", false
	}
	return path, true
}

// template reads a template's source. What is wrong inside is told with its place there.
func (c *moduleCheck) template(key, path string, t *image.Template) {
	text, err := readSmall(path)
	if err != nil {
		c.d.fault(key, "", "template %q cannot be used: %v", t.Source, err)
		return
	}
	t.Text = string(text)
	c.d.beside = append(c.d.beside, checkText(path, t.Text, &c.m.Module))
}

// checkText checks the text of a template of a module.
func checkText(path, text string, m *image.Module) *document {
	d := &document{file: path, text: []byte(text)}
	funcs := template.FuncMap{}
	for _, name := range functions {
		funcs[name] = func() string { return "" }
	}
	parsed, err := template.New("").Funcs(funcs).Parse(text)
	if err != nil {
		d.notParsed(err)
		return d
	}
	if parsed.Tree != nil { // nil: the text is empty
		w := templateWalk{d: d, known: dataOf(m)}
		w.node(parsed.Root, true)
	}
	return d
}

func readSmall(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxTemplate {
		return nil, errors.New("it has more than " + strconv.Itoa(maxTemplate) + " bytes")
	}
	b, err := os.ReadFile(path)
	if err == nil && !utf8.Valid(b) {
		err = errors.New("it is not UTF-8")
	}
	return b, err
}

var (
	parseError = regexp.MustCompile(`^template: :(\d+): (.*)$`)
	noFunction = regexp.MustCompile(`^function "(.*)" not defined$`)
)

// notParsed notes what text/template says of a text.
func (d *document) notParsed(err error) {
	line, message, remedy := 1, err.Error(), ""
	if m := parseError.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = m[2]
	}
	if m := noFunction.FindStringSubmatch(message); m != nil {
		remedy = oneOf(m[1], functions)
	}
	d.add(line, 1, 0, "not a template: "+message, remedy)
}

// dataOf says what a module's templates can name: for each field of the data the names below it, nil for those that
// stand for themselves.
func dataOf(m *image.Module) map[string][]string {
	secrets := passwords(m)
	for _, s := range m.Secrets {
		if s.Kind == "certificate" {
			secrets = append(secrets, s.Name+".crt", s.Name+".key")
		}
	}
	peers := names(m.Peers, func(p image.Peer) string { return p.Module })
	data := map[string][]string{
		"Organisation": {"Name", "Domain", "Language", "TimeZone", "Contact"},
		"Settings":     names(m.Settings, func(s image.Setting) string { return s.Name }),
		"Secrets":      secrets,
		"Module":       {"Name", "IPv4", "IPv6", "MemoryMax"},
		"Host":         {"IPv4", "IPv6"},
		"Peers":        peers,
		"LDAP":         {},
	}
	if m.LDAP != nil {
		data["Peers"] = append(peers, directory)
		data["LDAP"] = []string{"URI", "Suffix", "BindDN", "Password"}
	}
	if m.Name == directory {
		data["LDAP"] = []string{"URI", "Suffix", "Readers"}
	}
	return data
}

// templateWalk looks for what a template names and its data will not have, as far as that can be seen without running it:
// fields of the dot where it is the whole data, and of $.
type templateWalk struct {
	d     *document
	known map[string][]string
}

// node walks through a part of the template. Whole says that its dot is the whole data.
func (w *templateWalk) node(n parse.Node, whole bool) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil { // no else
			return
		}
		for _, x := range n.Nodes {
			w.node(x, whole)
		}
	case *parse.ActionNode:
		w.node(n.Pipe, whole)
	case *parse.TemplateNode:
		w.node(n.Pipe, whole)
	case *parse.IfNode:
		w.branch(&n.BranchNode, whole, whole)
	case *parse.RangeNode:
		w.branch(&n.BranchNode, whole, false)
	case *parse.WithNode:
		w.branch(&n.BranchNode, whole, false)
	case *parse.PipeNode:
		if n == nil { // of a template without data
			return
		}
		for _, cmd := range n.Cmds {
			w.command(cmd, whole)
		}
	case *parse.FieldNode:
		if whole {
			w.chain(n, n.Ident)
		}
	case *parse.VariableNode:
		if n.Ident[0] == "$" {
			w.chain(n, n.Ident[1:])
		}
	case *parse.ChainNode:
		w.node(n.Node, whole)
	}
}

func (w *templateWalk) branch(n *parse.BranchNode, whole, inside bool) {
	w.node(n.Pipe, whole)
	w.node(n.List, inside)
	w.node(n.ElseList, whole)
}

// command walks through a call. Names with a hyphen are no fields in templates: they are asked for with index.
func (w *templateWalk) command(n *parse.CommandNode, whole bool) {
	for _, arg := range n.Args {
		w.node(arg, whole)
	}
	if len(n.Args) != 3 || n.Args[0].String() != "index" {
		return
	}
	name, ok := n.Args[2].(*parse.StringNode)
	if !ok {
		return
	}
	switch f := n.Args[1].(type) {
	case *parse.FieldNode:
		if whole {
			w.chain(name, append(slices.Clone(f.Ident), name.Text))
		}
	case *parse.VariableNode:
		if f.Ident[0] == "$" {
			w.chain(name, append(slices.Clone(f.Ident[1:]), name.Text))
		}
	}
}

// chain checks the first two fields of the whole data.
func (w *templateWalk) chain(n parse.Node, fields []string) {
	if len(fields) == 0 {
		return
	}
	known, ok := w.known[fields[0]]
	if !ok {
		all := slices.Sorted(maps.Keys(w.known))
		w.d.at(int(n.Position()), oneOf(fields[0], all), "templates have no .%s", fields[0])
		return
	}
	if len(fields) > 1 && !slices.Contains(known, fields[1]) {
		w.d.at(int(n.Position()), oneOf(fields[1], known), "this module has no .%s.%s", fields[0], fields[1])
	}
}
