package firstrun

import (
	"bytes"
	_ "embed"
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Text is the same in several languages, by their codes.
type Text map[string]string

// In is the text in a language, or in English.
func (t Text) In(language string) string {
	if s := t[language]; s != "" {
		return s
	}
	return t["en"]
}

// Thing is a group or an office to be made.
type Thing struct {
	Name  string `toml:"name"`
	Title Text   `toml:"title"`
}

// Kind is a kind of organisation with what is proposed to it.
type Kind struct {
	Name     string                     `toml:"name"`
	Title    Text                       `toml:"title"`
	Help     Text                       `toml:"help"`
	Modules  []string                   `toml:"modules"`
	Groups   []Thing                    `toml:"group"`
	Offices  []Thing                    `toml:"office"`
	Settings map[string]map[string]Text `toml:"settings"` // by module and setting
}

//go:embed kinds.toml
var kindsFile []byte

// Kinds reads the kinds that there are.
func Kinds() ([]Kind, error) {
	var f struct {
		Kinds []Kind `toml:"kind"`
	}
	if err := toml.NewDecoder(bytes.NewReader(kindsFile)).DisallowUnknownFields().Decode(&f); err != nil {
		return nil, fmt.Errorf("cannot read the kinds of organisations: %w", err)
	}
	return f.Kinds, nil
}
