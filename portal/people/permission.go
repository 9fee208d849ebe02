package people

import (
	"errors"
	"slices"
	"strings"

	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/web"
)

// permissionsPage is what page permissions shows: a table for each module, with a row for each group.
type permissionsPage struct {
	Modules []modulePermissions
}

type modulePermissions struct {
	Title       string
	Permissions []string // titles
	Rows        []permissionRow
}

type permissionRow struct {
	Group string // title
	Cells []permissionCell
}

// permissionCell is a box: its value is MODULE.PERMISSION/GROUP.
type permissionCell struct {
	Value, Label string
	Granted      bool
}

func showPermissions(r *web.Request) error {
	groups, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	matrix, err := r.Directory.Permissions(r.Context())
	if err != nil {
		return err
	}
	var page permissionsPage
	for _, m := range r.Config().Modules {
		if len(m.Permissions) == 0 {
			continue
		}
		v := modulePermissions{Title: r.ModuleTitle(m.Name, m.Title)}
		for _, p := range m.Permissions {
			v.Permissions = append(v.Permissions, permissionTitle(r, m, p))
		}
		for _, g := range groups {
			row := permissionRow{Group: r.GroupTitle(g)}
			for _, p := range m.Permissions {
				row.Cells = append(row.Cells, permissionCell{
					Value:   m.Name + "." + p.Name + "/" + g.Name,
					Label:   r.T("permissions.may", "group", row.Group, "what", permissionTitle(r, m, p), "module", v.Title),
					Granted: matrix.Allows(m.Name, p.Name, g.Name),
				})
			}
			v.Rows = append(v.Rows, row)
		}
		page.Modules = append(page.Modules, v)
	}
	return r.Render("permissions", page)
}

// permissionTitle is a permission in the visitor's words, or those of its declaration.
func permissionTitle(r *web.Request, m config.Module, p config.Permission) string {
	return r.Or("permission."+m.Name+"."+p.Name+".title", p.Title)
}

// changePermissions carries out what differs from the page as the officer saw it, so that two of them do not undo each
// other's work.
func changePermissions(r *web.Request) error {
	was, wanted := r.Form.All("was"), r.Form.All("granted")
	for _, change := range []struct {
		from, to []string
		kind     string
		do       func(module, permission, group string) error
	}{
		{was, wanted, "permission.granted", func(m, p, g string) error { return r.Directory.Grant(r.Context(), m, p, g) }},
		{wanted, was, "permission.revoked", func(m, p, g string) error { return r.Directory.Revoke(r.Context(), m, p, g) }},
	} {
		for _, cell := range change.to {
			if slices.Contains(change.from, cell) {
				continue
			}
			m, p, g, ok := parseCell(r, cell)
			if !ok {
				return web.Fail(400, "problem.form")
			}
			if err := change.do(m, p, g); err != nil && !errors.Is(err, directory.ErrNotFound) {
				return err
			}
			r.Record(change.kind, g, map[string]string{"module": m, "permission": p})
		}
	}
	return r.Done("/portal/people/permissions", "people.changed")
}

// parseCell takes apart a box's value; it must name a permission of a module that is on.
func parseCell(r *web.Request, cell string) (module, permission, group string, ok bool) {
	what, group, ok := strings.Cut(cell, "/")
	module, permission, _ = strings.Cut(what, ".")
	if !ok {
		return "", "", "", false
	}
	for _, m := range r.Config().Modules {
		for _, p := range m.Permissions {
			if m.Name == module && p.Name == permission {
				return module, permission, group, true
			}
		}
	}
	return "", "", "", false
}
