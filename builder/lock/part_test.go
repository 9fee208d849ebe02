package lock

import (
	"slices"
	"testing"

	"allotment/builder/profile"
	"allotment/image"
)

func TestPart(t *testing.T) {
	of := &profile.Profile{Archs: []image.Arch{image.AMD64, image.ARM64}, Trees: map[string]*profile.Tree{
		"debian-base": {Packages: []string{"base-files"}}, "chat": {Base: "debian-base", Packages: []string{"prosody"}},
		"web": {Base: "debian-base", Packages: []string{"nginx"}},
	}}
	package1 := testPackage("prosody", "amd64")
	whole := &Lock{Format: Format, Epoch: 7, Inputs: InputsOf(of.Trees, of.Archs), Trees: map[string]map[image.Arch][]Package{
		"debian-base": {}, "web": {}, "chat": {image.AMD64: {package1}},
	}}
	want := func() *profile.Profile {
		return &profile.Profile{Archs: []image.Arch{image.AMD64}, Trees: map[string]*profile.Tree{
			"debian-base": of.Trees["debian-base"], "chat": of.Trees["chat"],
		}}
	}
	part, ok := whole.Part(of, want())
	if !ok {
		t.Fatal("a part of the profile is none")
	}
	if err := part.Check(want()); err != nil {
		t.Error(err)
	}
	if len(part.Trees) != 2 || !slices.Equal(part.Trees["chat"][image.AMD64], []Package{package1}) || part.Epoch != 7 {
		t.Errorf("part %v", part)
	}
	for name, spoil := range map[string]func(*profile.Profile){
		"another tree": func(p *profile.Profile) { p.Trees["mail"] = &profile.Tree{Base: "debian-base"} },
		"another package": func(p *profile.Profile) {
			p.Trees["chat"] = &profile.Tree{Base: "debian-base", Packages: []string{"ejabberd"}}
		},
		"another architecture": func(p *profile.Profile) { p.Archs = []image.Arch{"riscv64"} },
	} {
		p := want()
		spoil(p)
		if _, ok := whole.Part(of, p); ok {
			t.Errorf("%s: still a part", name)
		}
	}
	whole.Inputs = ""
	if _, ok := whole.Part(of, want()); ok {
		t.Error("a part of a lock that is out of date")
	}
}
