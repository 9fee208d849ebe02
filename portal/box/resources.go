package box

import (
	"time"

	"allotment/api"
	"allotment/portal/web"
)

// graphView is a graph with its words.
type graphView struct {
	Graph
	Key   string // of its title's message
	Unit  string // MB, or per cent
	About string // for who does not see it
}

// resourcesView is what the page of resources shows.
type resourcesView struct {
	Now     api.Resources
	Used    int64 // memory
	Modules []moduleView
	Graphs  []graphView
	Span    string // day or week
}

func (p *Pages) resources(r *web.Request) error {
	res, err := r.Box.Resources(ctx(r))
	if err != nil {
		return problem(err)
	}
	modules, _, err := look(r)
	if err != nil {
		return err
	}
	v := resourcesView{Now: res, Used: res.Memory - res.Available, Modules: modules, Span: "day"}
	span := 24 * time.Hour
	if r.Query("span") == "week" {
		v.Span, span = "week", keepSamples
	}
	from := r.Now.Add(-span)
	samples, err := p.history.Since(from)
	if err != nil {
		return err
	}
	draw := func(key, unit string, top int, value func(Sample) int) {
		g := graphView{Graph: NewGraph(samples, from, r.Now, top, value), Key: "box.resources." + key, Unit: unit}
		g.About = r.T("box.resources.about", "low", g.Low, "high", g.High, "now", g.Now, "unit", unit)
		v.Graphs = append(v.Graphs, g)
	}
	draw("memory", "MB", mib(res.Memory), func(s Sample) int { return s.Memory })
	draw("cpu", "%", 100, func(s Sample) int { return s.CPU })
	draw("disk", "MB", mib(res.Disk), func(s Sample) int { return s.Disk })
	return r.Render("resources", v)
}
