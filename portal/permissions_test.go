package portal

import (
	"slices"
	"testing"

	"allotment/modules/directory/directorytest"
	"allotment/portal/config"
	"allotment/portal/directory"
)

// A new module's permissions are there for whom the module names; those that officers have changed stay as they are.
func TestDeclare(t *testing.T) {
	address, password := directorytest.Start(t)
	d := directory.Open(address, func() (string, error) { return password, nil })
	defer d.Close()
	modules := []config.Module{{Name: "web", Permissions: []config.Permission{
		{Name: "use", Groups: []string{"members"}}, {Name: "edit", Groups: []string{"officers"}}, {Name: "shut"},
	}}}
	for range 2 { // the second time all is there
		if err := declare(t.Context(), d, modules); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Revoke(t.Context(), "web", "use", "members"); err != nil {
		t.Fatal(err)
	}
	if err := declare(t.Context(), d, modules); err != nil {
		t.Fatal(err)
	}
	got, err := d.Permissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got["web.use"]) != 0 || !slices.Equal(got["web.edit"], []string{"officers"}) || len(got["web.shut"]) != 0 || len(got) != 3 {
		t.Errorf("permissions %v", got)
	}
}
