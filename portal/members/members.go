// Package members is the pages that every member uses: logging in, the start page, her own account and her groups.
package members

import (
	"embed"

	"allotment/api"
	"allotment/portal/web"
)

//go:embed pages messages
var files embed.FS

// Section is the pages of this package.
func Section() web.Section {
	return web.Section{
		Name:  "members",
		Files: files,
		Menu: []web.Link{
			{Path: "/portal/", Key: "menu.home", Access: api.Member},
		},
		Routes: []web.Route{
			{Method: "GET", Path: "/portal/{$}", Access: api.Member, Does: "the start page: what the member may use", Handle: home},
		},
	}
}

// tile is a module that the member may use.
type tile struct {
	Title, Path string
}

// home shows what the member may use.
func home(r *web.Request) error {
	var tiles []tile
	for _, m := range r.Config().Modules {
		if m.Path == "" {
			continue
		}
		tiles = append(tiles, tile{Title: m.Title, Path: m.Path})
	}
	return r.Render("home", tiles)
}
