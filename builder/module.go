package builder

import (
	"context"
	"fmt"
	"slices"

	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
)

// Module makes the layers of one module of the profile, where anything has changed, and returns the module as the
// manifest has it, with its layers, lowest first. It is for trying a module out without making an image.
func Module(ctx context.Context, o Options, name string) (image.Module, []*Layer, error) {
	i := slices.IndexFunc(o.Profile.Modules, func(m *profile.ModuleSpec) bool { return m.Name == name })
	if i < 0 {
		return image.Module{}, nil, fmt.Errorf("cannot find module %q in profile %q", name, o.Profile.Name)
	}
	alone := *o.Profile
	alone.Modules = alone.Modules[i : i+1]
	o.Profile = &alone
	b, err := prepare(ctx, o)
	if err != nil {
		return image.Module{}, nil, err
	}
	toolRoot, err := tools.Open(ctx, b.Cache, b.archive, b.Progress)
	if err != nil {
		return image.Module{}, nil, err
	}
	layers, modules, err := b.layers(ctx, toolRoot)
	if err != nil {
		return image.Module{}, nil, err
	}
	return modules[0].Module, layers, nil
}
