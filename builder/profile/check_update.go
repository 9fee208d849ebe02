package profile

import (
	"encoding/json"
	"os"
	"path/filepath"

	"allotment/image"
)

// checkUpdate checks where updates come from, and puts the text of the root metadata (TUF specification 4.3) in place of its
// file's name. Whether its signatures hold is the device's business: it is what all others are judged by.
func checkUpdate(d *document, u *image.Update, channel, folder string) {
	u.Channel = channel
	for i, s := range u.URLs {
		checkURL(d, item("update.urls", i), s)
	}
	unique(d, "update.urls", u.URLs)
	if u.Root == "" {
		if len(u.URLs) > 0 {
			d.missing("update.root", "name the repository's root.json, relative to the profile: allot release init writes it")
		}
		return
	}
	text, err := os.ReadFile(filepath.Join(folder, u.Root))
	var root struct {
		Signed struct {
			Type string `json:"_type"`
		} `json:"signed"`
	}
	switch {
	case err != nil:
		d.fault("update.root", "name the repository's root.json, relative to the profile", "%q cannot be read", u.Root)
	case json.Unmarshal(text, &root) != nil || root.Signed.Type != "root":
		d.fault("update.root", "name the repository's root.json", "%q is no root metadata of TUF", u.Root)
	}
	u.Root = string(text)
}
