// Package render makes the files of modules out of their templates, with text/template, and puts them where services read
// them. docs/formats/settings.md describes what templates can use.
package render

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"allotment/init/fileset"
	"allotment/init/plan"
)

// maxFile bounds a rendered file, in bytes.
const maxFile = 4 << 20

// Render returns the module's files by their names. The error tells every template that cannot be rendered, with its file
// and line in the source tree, and never what a secret is.
func Render(m *plan.Module, d Data) (map[string][]byte, error) {
	files := map[string][]byte{}
	var errs []error
	for _, t := range m.Templates {
		b, err := render("modules/"+m.Name+"/"+t.Source, t.Text, d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files[t.Name] = b
	}
	if len(errs) > 0 {
		return nil, d.hide(errors.Join(errs...))
	}
	return files, nil
}

func render(source, text string, d Data) ([]byte, error) {
	t, err := template.New(source).Option("missingkey=error").Funcs(Functions()).Parse(text)
	out := bounded{}
	if err == nil {
		err = t.Execute(&out, d)
	}
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	return out.Bytes(), nil
}

// bounded is a buffer that holds maxFile bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxFile {
		return 0, fmt.Errorf("the file has more than %d bytes", maxFile)
	}
	return b.Buffer.Write(p)
}

// Install exchanges the module's files below dir, all at once, for services that see DIR/MODULE as /run/config, and
// returns the names of those whose contents changed. Each can be read by the declared user alone.
func Install(dir string, m *plan.Module, files map[string][]byte) (changed []string, err error) {
	folder := filepath.Join(dir, m.Name)
	before, err := fileset.Read(folder)
	if err != nil {
		return nil, err
	}
	var next []fileset.File
	for _, t := range m.Templates {
		content, ok := files[t.Name]
		if !ok {
			return nil, fmt.Errorf("cannot install file %q of module %q: it was not rendered", t.Name, m.Name)
		}
		old, there := before[t.Name]
		if !there || !bytes.Equal(old, content) {
			changed = append(changed, t.Name)
		}
		next = append(next, fileset.File{
			Name: t.Name, Content: content, Mode: 0o400, UID: int(m.FirstID + t.UID), GID: int(m.FirstID + t.GID),
		})
	}
	if len(changed) == 0 && len(next) == len(before) && len(next) > 0 {
		return nil, nil // so that what was there before the last change can still be restored
	}
	slices.Sort(changed)
	return changed, fileset.Exchange(folder, next)
}

// Restore brings back the files that were there before the last Install that changed any.
func Restore(dir string, m *plan.Module) error { return fileset.Restore(filepath.Join(dir, m.Name)) }
