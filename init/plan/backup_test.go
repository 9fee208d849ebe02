package plan

import (
	"slices"
	"testing"

	"allotment/image"
)

// The second instance must share nothing with the first that could do harm: control group, address, ports, others to talk to.
func TestProof(t *testing.T) {
	layers := make([]image.Digest, 1)
	root := []image.User{{Name: "root"}}
	p, err := New(&image.Manifest{Modules: []image.Module{
		{Name: "directory", Layers: layers, Users: root, Memory: image.Memory{Max: 64},
			Services: []image.Service{{Name: "slapd", Command: []string{"/a"}, User: "root"}}},
		{Name: "web", Layers: layers, Users: root, Memory: image.Memory{Max: 64}, LDAP: &image.LDAP{Read: []string{"people"}},
			HTTP: &image.HTTP{Port: 80, Path: "/"}, Ports: []image.Port{{Port: 5222, Expose: "public"}},
			Egress:  []image.Egress{{Ports: []int{443}}},
			Volumes: []image.Volume{{Name: "data", Path: "/data", User: "root", Format: 1}},
			Services: []image.Service{{Name: "database", Command: []string{"/a"}, User: "root"},
				{Name: "page", Command: []string{"/a"}, User: "root", Needs: []string{"database"}}},
			Migrations: []image.Migration{{Volume: "data", Format: 1, Task: image.Task{Command: []string{"/m"}, User: "root"}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m := p.Module("web")
	c := Proof(m)
	for _, other := range p.Modules {
		if c.IPv4 == other.IPv4 || c.IPv6 == other.IPv6 || c.Cgroup == other.Cgroup {
			t.Errorf("it shares an address or a control group with %s", other.Name)
		}
	}
	if c.HTTP != nil || len(c.Peers)+len(c.Declared.Ports)+len(c.Declared.Egress) > 0 || c.Declared.LDAP != nil {
		t.Errorf("it could talk to others: %+v", c)
	}
	if m.HTTP == nil || len(m.Declared.Ports) == 0 || m.Service("page").Module != m {
		t.Error("the module itself has changed")
	}
	page := c.Service("page")
	if page.Module != c || page.Cgroup == m.Service("page").Cgroup || !slices.Equal(page.Requires, []*Service{c.Service("database")}) ||
		!slices.Equal(page.After, c.Migrations) || c.Migrations[0].Module != c {
		t.Errorf("its services depend on others than its own: %+v", page)
	}
	if page.ID != m.Service("page").ID || c.FirstID != m.FirstID || c.Name != m.Name {
		t.Error("files of the module would not be its own")
	}
}
