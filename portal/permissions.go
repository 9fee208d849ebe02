package portal

import (
	"context"
	"errors"
	"reflect"
	"time"

	"allotment/portal/config"
	"allotment/portal/directory"
)

// retryEvery is how often the directory is asked that does not answer yet, and the configuration looked at.
const retryEvery = 10 * time.Second

// DeclarePermissions declares those of all modules that the directory does not know, as the modules come: without them nobody
// may use a module, whose filter asks for its permission. It ends when ctx does.
func (p *Portal) DeclarePermissions(ctx context.Context) {
	var declared []config.Module
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		if modules := p.deps.Config().Modules; !reflect.DeepEqual(modules, declared) {
			err := declare(ctx, p.deps.Directory, modules)
			switch {
			case err == nil:
				declared = modules
			case !errors.Is(err, directory.ErrUnavailable):
				p.deps.Log.Error("cannot declare permissions", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// declare gives each new permission to the groups that the module names; what officers have changed stays.
func declare(ctx context.Context, d *directory.Directory, modules []config.Module) error {
	for _, m := range modules {
		for _, x := range m.Permissions {
			if err := d.DeclarePermission(ctx, m.Name, x.Name, x.Groups...); err != nil && !errors.Is(err, directory.ErrExists) {
				return err
			}
		}
	}
	return nil
}
