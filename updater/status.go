package updater

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"allotment/updater/config"
)

// show replaces the status file. It lies in memory, so nothing is synced.
func (d *Daemon) show(s config.Status) {
	s.Checked = unix(d.checked)
	if s.NextCheck == 0 {
		s.NextCheck = unix(d.next)
	}
	if s == d.status {
		return
	}
	d.status = s
	path := filepath.Join(d.Folder, config.StatusFile)
	b, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		d.Log.Warn("cannot tell what goes on", "error", err)
	}
}

// sentence is an error as a sentence.
func sentence(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	first, n := utf8.DecodeRuneInString(text)
	text = string(unicode.ToUpper(first)) + text[n:]
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}
