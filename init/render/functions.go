package render

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"unicode"
)

// Functions returns those that templates can use besides the built-in ones.
func Functions() template.FuncMap {
	return template.FuncMap{
		"json": toJSON, "quote": quote, "lua": lua, "php": php, "lines": lines, "base64": toBase64,
	}
}

// toJSON is the value in JSON, on one line. What HTML would take for the end of a script is escaped.
func toJSON(value any) (string, error) {
	b, err := json.Marshal(value)
	return string(b), err
}

// quote is the value in double quotes, for sh and for INI files that know backslashes: one before each of \ " $ and `.
// No escape for control characters is understood by all of them, so there must be none.
func quote(value any) (string, error) {
	text := fmt.Sprint(value)
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("quote cannot write a text with line breaks or other control characters")
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(text) + `"`, nil
}

// lua is the value as a literal of Lua.
func lua(value any) (string, error) {
	switch v := value.(type) {
	case bool, int, int64:
		return fmt.Sprint(v), nil
	case string:
		var b strings.Builder
		b.WriteByte('"')
		for _, c := range []byte(v) {
			switch {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c == 0x7f:
				fmt.Fprintf(&b, `\%03d`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
		return b.String(), nil
	}
	return "", fmt.Errorf("lua cannot write a %T", value)
}

// php is the value as a literal of PHP.
func php(value any) (string, error) {
	switch v := value.(type) {
	case bool, int, int64:
		return fmt.Sprint(v), nil
	case string:
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'", nil
	}
	return "", fmt.Errorf("php cannot write a %T", value)
}

// lines are the lines of a text without the blanks around them, and without empty ones.
func lines(text string) []string {
	var all []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			all = append(all, l)
		}
	}
	return all
}

// toBase64 is the text in base64 (RFC 4648, section 4).
func toBase64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
